#include "discover/literal_text.h"

#include <algorithm>
#include <string>

#include "discover/known_words.h"
#include "discover/letters.h"

namespace prm {
namespace {

constexpr size_t kMostDigits = 3;
// Words count as known beside unknown ones if they are so long; in mixed text short ones arise by chance.
constexpr size_t kLeastWord = 3;
constexpr size_t kLeastWordMixed = 6;
constexpr size_t kMixedFactor = 2;

// Letters of other scripts count as small ones.
bool IsSmall(char c) { return IsLower(c) || static_cast<unsigned char>(c) >= 0x80; }
bool IsAnyLetter(char c) { return IsSmall(c) || IsUpper(c); }

std::string ToLower(Bytes text) {
  std::string lower(text);
  for (char& c : lower) {
    if (IsUpper(c)) c = static_cast<char>(c - 'A' + 'a');
  }
  return lower;
}

size_t RunOf(Bytes text, bool (*is)(char)) {
  return static_cast<size_t>(std::find_if_not(text.begin(), text.end(), is) - text.begin());
}

// The length of the first word of letters such as userName, UserName, HTTPServer.
size_t FirstWord(Bytes letters) {
  const size_t capitals = RunOf(letters, IsUpper);
  if (capitals == letters.size()) return capitals;
  if (capitals > 1) return capitals - 1;
  return capitals + RunOf(letters.substr(capitals), IsSmall);
}

// Whether letters are known words.
bool AreKnown(Bytes letters) {
  const size_t first = FirstWord(letters);
  return IsKnownWord(ToLower(letters.substr(0, first))) &&
         (first == letters.size() || AreKnown(letters.substr(first)));
}

}  // namespace

size_t UnknownBytes(Bytes segment) {
  size_t letters = 0, digits = 0, unknown = 0, unknown_mixed = 0;
  bool lower = false, upper = false, is_mixed = false, all_known = true;
  for (size_t at = 0; at < segment.size();) {
    const Bytes rest = segment.substr(at);
    if (IsDigit(rest[0])) {
      const size_t run = RunOf(rest, IsDigit);
      all_known = all_known && run <= kMostDigits;
      digits += run;
      at += run;
      is_mixed = is_mixed || run > kMostDigits || (at < segment.size() && IsAnyLetter(segment[at]));
    } else if (IsAnyLetter(rest[0])) {
      const Bytes word = rest.substr(0, RunOf(rest, IsAnyLetter));
      const bool known = AreKnown(word);
      all_known = all_known && known;
      letters += word.size();
      if (!known || word.size() < kLeastWord) unknown += word.size();
      if (!known || word.size() < kLeastWordMixed) unknown_mixed += word.size();
      lower = lower || std::any_of(word.begin(), word.end(), IsSmall);
      upper = upper || std::any_of(word.begin(), word.end(), IsUpper);
      at += word.size();
    } else {
      ++at;
    }
  }
  if (all_known && !is_mixed) return 0;
  if (!is_mixed && !(upper && (lower || digits > 0))) return unknown + digits;
  return kMixedFactor * (segment.size() - letters + unknown_mixed);
}

}  // namespace prm
