#include "core/rate_text.h"

#include <charconv>
#include <string>

namespace prm {
namespace {

struct Unit {
  std::string_view name;  // without the s of the plural
  int64_t nanoseconds;
};

constexpr int64_t kSecond = 1000000000;
constexpr int64_t kDay = 86400 * kSecond;
constexpr Unit kUnits[] = {
    {"ms", kSecond / 1000},
    {"millisecond", kSecond / 1000},
    {"s", kSecond},
    {"sec", kSecond},
    {"second", kSecond},
    {"m", 60 * kSecond},
    {"min", 60 * kSecond},
    {"minute", 60 * kSecond},
    {"h", 3600 * kSecond},
    {"hour", 3600 * kSecond},
    {"d", kDay},
    {"day", kDay},
    {"week", 7 * kDay},
    {"month", 30 * kDay},
    {"year", 360 * kDay},
};

bool IsSpace(char c) { return c == ' ' || c == '\t' || c == '\n' || c == '\r'; }
bool IsDigit(char c) { return c >= '0' && c <= '9'; }
bool IsLetter(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }

// Parses an item from left to right.
class Scanner {
 public:
  explicit Scanner(std::string_view text) : text_(text) { SkipSpace(); }

  bool AtEnd() const { return text_.empty(); }
  bool AtDigit() const { return !text_.empty() && IsDigit(text_.front()); }

  bool Number(int64_t* number) {
    const auto [end, error] = std::from_chars(text_.data(), text_.data() + text_.size(), *number);
    if (error != std::errc() || !AtDigit()) return false;
    Advance(static_cast<size_t>(end - text_.data()));
    return true;
  }

  bool Slash() {
    if (text_.empty() || text_.front() != '/') return false;
    Advance(1);
    return true;
  }

  // Letters, in lower case.
  std::string Word() {
    std::string word;
    size_t size = 0;
    while (size < text_.size() && IsLetter(text_[size])) word += static_cast<char>(text_[size++] | 0x20);
    Advance(size);
    return word;
  }

 private:
  void Advance(size_t size) {
    text_.remove_prefix(size);
    SkipSpace();
  }
  void SkipSpace() {
    while (!text_.empty() && IsSpace(text_.front())) text_.remove_prefix(1);
  }

  std::string_view text_;
};

int64_t UnitNamed(std::string_view word) {
  std::string_view singular = word;
  if (word.size() > 3 && word.back() == 's') singular.remove_suffix(1);
  for (const Unit& unit : kUnits)
    if (word == unit.name || singular == unit.name) return unit.nanoseconds;
  return 0;
}

bool ParseItem(std::string_view text, RateText* rate) {
  Scanner scanner(text);
  int64_t count = 1;
  if (!scanner.Number(&rate->quota) || rate->quota < 1) return false;
  if (!scanner.Slash() && scanner.Word() != "per") return false;
  if (scanner.AtDigit() && (!scanner.Number(&count) || count < 1)) return false;
  const int64_t unit = UnitNamed(scanner.Word());
  return unit != 0 && scanner.AtEnd() && !__builtin_mul_overflow(count, unit, &rate->period);
}

}  // namespace

Result<std::vector<RateText>> ParseRates(std::string_view text) {
  std::vector<RateText> rates;
  for (size_t begin = 0; begin <= text.size();) {
    const size_t end = std::min(text.find_first_of(";,", begin), text.size());
    const std::string_view item = text.substr(begin, end - begin);
    RateText rate{};
    if (!ParseItem(item, &rate))
      return Error{ErrorCode::kInvalidArgument, "invalid rate limit \"" + std::string(item) + "\"", "",
                   "Write a number, \"/\" or \"per\", and a time, as in '10/s' or '100 per 15 minutes'."};
    rates.push_back(rate);
    begin = end + 1;
  }
  return rates;
}

}  // namespace prm
