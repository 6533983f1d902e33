#include "core/pattern.h"

#include <algorithm>
#include <array>
#include <limits>
#include <numeric>
#include <utility>

namespace prm {
namespace {

constexpr size_t kMaxNameBytes = 63;  // of a PostgreSQL column

// Atoms of a skeleton other than bytes.
constexpr int kAnyByte = 256;
constexpr int kAnyBytes = 257;

// The columns of the batch relation that do not come from captures.
constexpr std::string_view kReservedNames[] = {
    "entry",
    "key",
    "key_bytes",
    "db",
    "type",
    "expires_at",
    "value",
    "value_bytes",
    "payload",
    "json",
    "field",
    "field_bytes",
    "member",
    "member_bytes",
    "score",
    "position",
    "ordinal",
    "entry_id",
    "group_name",
    "consumer",
    "last_delivered_id",
    "entries_read",
    "delivered_at",
    "delivery_count",
    "fields_bytes",
    "group_name_bytes",
    "consumer_bytes",
    "field_expires_at",
};

bool IsNameStart(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_'; }
bool IsNameByte(char c) { return IsNameStart(c) || (c >= '0' && c <= '9'); }

bool IsName(std::string_view name) {
  return !name.empty() && IsNameStart(name[0]) && std::all_of(name.begin(), name.end(), IsNameByte);
}

std::string Quoted(std::string_view text) { return "\"" + std::string(text) + "\""; }

}  // namespace

// Reads the text of a pattern from left to right.
class PatternReader {
 public:
  explicit PatternReader(std::string_view text) : text_(text) {}

  Result<KeyPattern> Read() {
    if (text_.empty()) return Bad("It is empty.", "Use * for a pattern that fits every key.");
    if (text_.size() > KeyPattern::kMaxTextBytes) {
      return Error{ErrorCode::kInvalidArgument, "key pattern is too long",
                   "It has " + std::to_string(text_.size()) + " bytes, at most " +
                       std::to_string(KeyPattern::kMaxTextBytes) + " are possible.",
                   ""};
    }
    pattern_.text_ = text_;
    while (at_ < text_.size()) {
      const char c = text_[at_];
      if (c == '{') {
        PRM_RETURN_IF_ERROR(ReadCapture());
      } else if (c == '*') {
        PRM_RETURN_IF_ERROR(AddWildcard(true, CaptureType::kText));
        ++at_;
      } else if (c == '\\') {
        PRM_RETURN_IF_ERROR(ReadEscape());
      } else {
        AddLiteral(c);
        ++at_;
      }
    }
    return std::move(pattern_);
  }

 private:
  Error Bad(std::string detail, std::string hint) const {
    return Error{ErrorCode::kInvalidArgument, "invalid key pattern " + Quoted(text_), std::move(detail),
                 std::move(hint)};
  }

  void AddLiteral(char c) {
    (pattern_.wildcards_.empty() ? pattern_.prefix_ : pattern_.wildcards_.back().literal) += c;
    ++pattern_.literal_bytes_;
  }

  Status AddWildcard(bool is_star, CaptureType type) {
    auto& wildcards = pattern_.wildcards_;
    if (!wildcards.empty() && wildcards.back().literal.empty()) {
      return Bad("Two wildcards stand side by side before byte " + std::to_string(at_ + 1) +
                     ", so nothing says where the first of them ends.",
                 "Put literal text between them, or capture both as one.");
    }
    if (wildcards.size() == KeyPattern::kMaxWildcards) {
      return Bad("It has more than " + std::to_string(KeyPattern::kMaxWildcards) + " wildcards.", "");
    }
    wildcards.push_back({is_star, type, ""});
    return {};
  }

  Status ReadEscape() {
    const std::string_view escape = text_.substr(at_, 2);
    if (escape.size() < 2 || std::string_view("{}*\\").find(escape[1]) == std::string_view::npos) {
      return Bad("The escape at byte " + std::to_string(at_ + 1) + " is unknown.",
                 "Only \\{, \\}, \\* and \\\\ are escapes; write \\\\ for a backslash.");
    }
    AddLiteral(escape[1]);
    at_ += 2;
    return {};
  }

  Status ReadCapture() {
    const size_t end = text_.find('}', at_);
    if (end == std::string_view::npos) {
      return Bad("The capture at byte " + std::to_string(at_ + 1) + " has no closing brace.",
                 "Write \\{ where keys have a brace.");
    }
    const std::string_view content = text_.substr(at_ + 1, end - at_ - 1);
    const size_t colon = content.find(':');
    const std::string_view name = content.substr(0, colon);
    PRM_RETURN_IF_ERROR(CheckName(name));
    CaptureType type = CaptureType::kText;
    if (colon != std::string_view::npos) {
      const std::string_view type_name = content.substr(colon + 1);
      const auto found = CaptureTypeFromName(type_name);
      if (!found) {
        return Bad("The capture " + Quoted(name) + " has the unknown type " + Quoted(type_name) + ".",
                   "The types are " + CaptureTypeNames() + ". Write \\{ where keys have a brace.");
      }
      type = *found;
    }
    PRM_RETURN_IF_ERROR(AddWildcard(false, type));
    pattern_.captures_.push_back({std::string(name), type});
    at_ = end + 1;
    return {};
  }

  Status CheckName(std::string_view name) const {
    if (!IsName(name) || name.size() > kMaxNameBytes) {
      return Bad("A capture cannot have the name " + Quoted(name) + ".",
                 "Names are letters, digits and underscores, do not begin with a digit and have at most " +
                     std::to_string(kMaxNameBytes) + " bytes. Write \\{ where keys have a brace.");
    }
    if (std::find(std::begin(kReservedNames), std::end(kReservedNames), name) != std::end(kReservedNames)) {
      return Bad("The capture name " + Quoted(name) + " is reserved: redis_batch has a column of that name.",
                 "Choose another name, for example " + Quoted("key_" + std::string(name)) + ".");
    }
    for (const Capture& capture : pattern_.captures_) {
      if (capture.name == name) {
        return Bad("The capture name " + Quoted(name) + " is used twice.", "Give each capture its own name.");
      }
    }
    return {};
  }

  std::string_view text_;
  size_t at_ = 0;
  KeyPattern pattern_;
};

// One attempt to divide a key, which begins with the pattern's first literal and is as long as all its
// literals, among the wildcards: a depth-first search that never tries the same end of a wildcard twice.
class KeySearch {
 public:
  KeySearch(const KeyPattern& pattern, Bytes key, Match& match)
      : wildcards_(pattern.wildcards_), first_(pattern.prefix_.size()), key_(key), match_(match) {}

  Fit Run() {
    match_.values.clear();
    match_.failed.clear();
    if (wildcards_.empty()) return key_.size() == first_ ? Fit::kFits : Fit::kNone;
    if (!FindLatest()) return Fit::kNone;
    std::fill_n(tried_from_.begin(), wildcards_.size(), key_.size() + 1);
    if (Extend(0, first_)) {
      FillValues(begin_);
      return Fit::kFits;
    }
    FillFurthest();
    return Fit::kMisfit;
  }

 private:
  using Positions = std::array<size_t, KeyPattern::kMaxWildcards + 1>;

  size_t Last() const { return wildcards_.size() - 1; }

  // Finds, from the key's end, the latest position at which each wildcard can begin such that the skeleton of
  // the rest still fits. False when the key does not have the skeleton.
  bool FindLatest() {
    const std::string& suffix = wildcards_.back().literal;
    end_ = key_.size() - suffix.size();
    if (end_ < first_ + wildcards_.back().min_bytes() || key_.substr(end_) != suffix) return false;
    latest_[Last()] = end_ - wildcards_.back().min_bytes();
    for (size_t i = Last(); i-- > 0;) {
      const std::string& literal = wildcards_[i].literal;
      const size_t found = key_.substr(0, latest_[i + 1]).rfind(literal);
      if (found == Bytes::npos || found < first_ + wildcards_[i].min_bytes()) return false;
      latest_[i] = found - wildcards_[i].min_bytes();
    }
    return true;
  }

  // Whether wildcard i can begin at `begin` (not after latest_[i]) so that it and all later ones fit.
  bool Extend(size_t i, size_t begin) {
    begin_[i] = begin;
    const bool is_text = wildcards_[i].type == CaptureType::kText;
    if (i == Last()) {
      if (is_text || FitsType(wildcards_[i].type, key_.substr(begin, end_ - begin))) return true;
    } else if (is_text ? ExtendText(i, begin) : ExtendTyped(i, begin)) {
      return true;
    }
    if (!is_text && (!has_furthest_ || i > furthest_)) {
      has_furthest_ = true;
      furthest_ = i;
      std::copy_n(begin_.begin(), i + 1, furthest_begin_.begin());
    }
    return false;
  }

  // Shortest first. Which ends are possible does not depend on where the capture begins, so the ends that
  // earlier calls tried are all those from some position on.
  bool ExtendText(size_t i, size_t begin) {
    const std::string& literal = wildcards_[i].literal;
    const size_t first = begin + wildcards_[i].min_bytes();
    const size_t untried = std::min(latest_[i + 1], tried_from_[i] + literal.size() - 1);
    for (size_t end = first; (end = key_.substr(0, untried).find(literal, end)) != Bytes::npos; ++end) {
      if (Extend(i + 1, end + literal.size())) return true;
    }
    tried_from_[i] = std::min(tried_from_[i], first);
    return false;
  }

  // Longest first.
  bool ExtendTyped(size_t i, size_t begin) {
    const std::string& literal = wildcards_[i].literal;
    PrefixLengths prefixes;
    FindPrefixes(wildcards_[i].type, key_.substr(begin, latest_[i + 1] - literal.size() - begin), prefixes);
    const size_t first_end = i * key_.size();
    while (prefixes.count > 0) {
      const size_t end = begin + prefixes.length[--prefixes.count];
      if (!match_.failed.empty() && match_.failed[first_end + end]) continue;
      if (key_.compare(end, literal.size(), literal) != 0) continue;
      if (Extend(i + 1, end + literal.size())) return true;
      if (match_.failed.empty()) match_.failed.resize(Last() * key_.size());
      match_.failed[first_end + end] = true;
    }
    return false;
  }

  void FillValues(const Positions& begin) {
    for (size_t i = 0; i < wildcards_.size(); ++i) {
      if (wildcards_[i].is_star) continue;
      const size_t end = i == Last() ? end_ : begin[i + 1] - wildcards_[i].literal.size();
      match_.values.push_back(key_.substr(begin[i], end - begin[i]));
    }
  }

  // After a misfit: the division in which the most wildcards fitted, the rest of it divided by the skeleton
  // alone.
  void FillFurthest() {
    for (size_t i = furthest_; i < Last(); ++i) {
      const std::string& literal = wildcards_[i].literal;
      furthest_begin_[i + 1] =
          key_.find(literal, furthest_begin_[i] + wildcards_[i].min_bytes()) + literal.size();
    }
    FillValues(furthest_begin_);
    match_.misfit = 0;
    for (size_t i = 0; i < furthest_; ++i) match_.misfit += wildcards_[i].is_star ? 0 : 1;
  }

  const std::vector<KeyPattern::Wildcard>& wildcards_;
  const size_t first_;  // where the first wildcard begins
  const Bytes key_;
  Match& match_;
  size_t end_ = 0;        // where the last wildcard ends
  Positions latest_;      // for each wildcard: the latest position at which it can begin
  Positions begin_;       // for each wildcard: where it begins in the division being tried
  Positions tried_from_;  // for text and stars: ends from here on were tried in vain
  bool has_furthest_ = false;
  size_t furthest_ = 0;  // the last wildcard that was reached and did not fit
  Positions furthest_begin_;
};

Result<KeyPattern> KeyPattern::Parse(std::string_view text, std::string_view shown) {
  Result<KeyPattern> pattern = PatternReader(text).Read();
  if (pattern.ok() && !shown.empty()) pattern.value().text_ = shown;
  return pattern;
}

Fit KeyPattern::MatchKey(Bytes key, Match& match) const {
  // Most keys belong to other patterns: reject them early.
  if (key.size() < literal_bytes_ || key.compare(0, prefix_.size(), prefix_) != 0) return Fit::kNone;
  return KeySearch(*this, key, match).Run();
}

std::string KeyPattern::Compose(const std::vector<std::string>& values) const {
  std::string key = prefix_;
  for (size_t i = 0; i < wildcards_.size(); ++i) key += values[i] + wildcards_[i].literal;
  return key;
}

std::string KeyPattern::Glob() const {
  std::string glob;
  auto add = [&](const std::string& literal) {
    for (const char c : literal) {
      if (std::string_view("*?[]^\\").find(c) != std::string_view::npos) glob += '\\';
      glob += c;
    }
  };
  add(prefix_);
  for (const Wildcard& wildcard : wildcards_) {
    glob += '*';
    add(wildcard.literal);
  }
  return glob;
}

bool KeyPattern::Overlaps(const KeyPattern& other) const {
  // Both as sequences of atoms: a byte (0 to 255), any byte, or any bytes. A capture is any byte and then any
  // bytes.
  const auto atoms = [](const KeyPattern& pattern) {
    std::vector<int> result;
    const auto add_literal = [&result](Bytes literal) {
      for (const char c : literal) result.push_back(static_cast<unsigned char>(c));
    };
    add_literal(pattern.prefix_);
    for (const Wildcard& wildcard : pattern.wildcards_) {
      if (!wildcard.is_star) result.push_back(kAnyByte);
      result.push_back(kAnyBytes);
      add_literal(wildcard.literal);
    }
    return result;
  };
  const std::vector<int> a = atoms(*this);
  const std::vector<int> b = atoms(other);
  // row[j]: whether some text fits both the atoms of a from i on and those of b from j on.
  std::vector<bool> row(b.size() + 1);
  for (size_t i = a.size() + 1; i-- > 0;) {
    std::vector<bool> below = std::exchange(row, std::vector<bool>(b.size() + 1));
    for (size_t j = b.size() + 1; j-- > 0;) {
      const bool a_ends = i == a.size();
      const bool b_ends = j == b.size();
      if (a_ends && b_ends) {
        row[j] = true;
      } else if (!a_ends && a[i] == kAnyBytes) {
        row[j] = below[j] || (!b_ends && row[j + 1]);
      } else if (!b_ends && b[j] == kAnyBytes) {
        row[j] = row[j + 1] || (!a_ends && below[j]);
      } else if (!a_ends && !b_ends) {
        row[j] = (a[i] == b[j] || a[i] == kAnyByte || b[j] == kAnyByte) && below[j + 1];
      }
    }
  }
  return row[0];
}

bool KeyPattern::Covers(const KeyPattern& other) const {
  if (prefix_ != other.prefix_ || wildcards_.size() != other.wildcards_.size()) return false;
  const auto takes = [](const Wildcard& a, const Wildcard& b) {
    if (a.literal != b.literal || (b.is_star && !a.is_star)) return false;
    return a.type == b.type || a.type == CaptureType::kText ||
           (a.type == CaptureType::kNumber && b.type == CaptureType::kInt);
  };
  return std::equal(wildcards_.begin(), wildcards_.end(), other.wildcards_.begin(), takes);
}

bool KeyPattern::MoreSpecific(const KeyPattern& a, const KeyPattern& b) {
  const auto typed = [](const KeyPattern& pattern) {
    return std::count_if(pattern.captures_.begin(), pattern.captures_.end(),
                         [](const Capture& capture) { return capture.type != CaptureType::kText; });
  };
  if (a.literal_bytes_ != b.literal_bytes_) return a.literal_bytes_ > b.literal_bytes_;
  if (typed(a) != typed(b)) return typed(a) > typed(b);
  const size_t a_stars = a.wildcards_.size() - a.captures_.size();
  const size_t b_stars = b.wildcards_.size() - b.captures_.size();
  if (a_stars != b_stars) return a_stars < b_stars;
  return a.text_ < b.text_;
}

PatternSet::PatternSet(std::vector<KeyPattern> patterns)
    : patterns_(std::move(patterns)), order_(patterns_.size()) {
  std::iota(order_.begin(), order_.end(), size_t{0});
  std::stable_sort(order_.begin(), order_.end(), [this](size_t a, size_t b) {
    return KeyPattern::MoreSpecific(patterns_[a], patterns_[b]);
  });
}

}  // namespace prm
