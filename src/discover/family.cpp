#include "discover/family.h"

#include <algorithm>
#include <iterator>
#include <set>
#include <utility>

#include "core/printable.h"
#include "discover/letters.h"
#include "discover/randomness.h"

namespace prm {
namespace {

using Node = FamilyTree::Node;
using Note = FamilyTree::Note;

// From this many keys on, a short number that is the same in all of them is part of the pattern, like a
// version.
constexpr uint64_t kConstantFrom = 8;
constexpr size_t kConstantDigits = 3;
// A key is odd, rather than a family of its own, if the family that it resembles has this many times the keys
// and few keys are like it; all odd keys together may be twice as many.
constexpr uint64_t kOddFactor = 8;
constexpr uint64_t kMostOdd = 3;
// The number of families in which odd keys are looked for.
constexpr size_t kMostHosts = 500;
// The number of families that are compared with one another.
constexpr size_t kMostCompared = 2000;
constexpr size_t kMostLiteralBytes = 2000;

struct Part {
  bool is_capture;
  PieceClass what;
  std::string text;  // of a literal
};

CaptureType TypeOf(PieceClass what) {
  switch (what) {
    case PieceClass::kInt:
      return CaptureType::kInt;
    case PieceClass::kNumber:
      return CaptureType::kNumber;
    case PieceClass::kUuid:
      return CaptureType::kUuid;
    case PieceClass::kInet:
      return CaptureType::kInet;
    case PieceClass::kDate:
    case PieceClass::kDay:
      return CaptureType::kDate;
    case PieceClass::kMonth:
      return CaptureType::kMonth;
    case PieceClass::kHex:
      return CaptureType::kHex;
    case PieceClass::kEmail:
      return CaptureType::kEmail;
    default:
      return CaptureType::kText;
  }
}

// Names of captures, alone and after a word.
const char* NameOf(PieceClass what) {
  switch (what) {
    case PieceClass::kInt:
    case PieceClass::kUuid:
      return "id";
    case PieceClass::kNumber:
      return "number";
    case PieceClass::kInet:
      return "ip";
    case PieceClass::kDate:
    case PieceClass::kDay:
      return "day";
    case PieceClass::kMonth:
      return "month";
    case PieceClass::kHex:
      return "hash";
    case PieceClass::kEmail:
      return "email";
    case PieceClass::kUrl:
      return "url";
    case PieceClass::kToken:
      return "token";
    case PieceClass::kDigits:
      return "code";
    case PieceClass::kBinary:
      return "rest";
    default:
      return "name";
  }
}

bool NeedsWord(PieceClass what) {
  return what == PieceClass::kInt || what == PieceClass::kUuid || what == PieceClass::kText;
}

// The last word of a literal, in lower case, as the start of a column's name; empty when there is none.
std::string LastWord(Bytes literal) {
  const auto in_word = [](char c) { return IsDigit(c) || IsLower(c) || IsUpper(c) || c == '_' || c == '-'; };
  size_t end = literal.size();
  while (end > 0 && !(in_word(literal[end - 1]) && literal[end - 1] != '_' && literal[end - 1] != '-')) --end;
  size_t begin = end;
  while (begin > 0 && in_word(literal[begin - 1])) --begin;
  std::string word;
  for (const char c : literal.substr(begin, std::min<size_t>(end - begin, 30))) {
    word += c == '-' ? '_' : IsUpper(c) ? static_cast<char>(c - 'A' + 'a') : c;
  }
  return word.empty() || IsDigit(word[0]) ? std::string() : word;
}

std::string Escaped(Bytes literal) {
  std::string text;
  for (const char c : literal) {
    if (c == '{' || c == '}' || c == '*' || c == '\\') text += '\\';
    text += c;
  }
  return text;
}

// The parts of the pattern of the keys that end in the last node of a path.
std::vector<Part> PartsOf(const std::vector<const Node*>& path) {
  std::vector<Part> parts;
  const auto add_literal = [&](Bytes text) {
    if (text.empty()) return;
    if (parts.empty() || parts.back().is_capture) parts.push_back({false, PieceClass::kLiteral, ""});
    parts.back().text += text;
  };
  for (const Node* node : path) {
    for (const Note& note : node->notes) {
      const bool is_constant = note.what == PieceClass::kInt && !note.varies &&
                               note.text.size() <= kConstantDigits && node->keys >= kConstantFrom;
      if (note.what == PieceClass::kLiteral || is_constant) {
        add_literal(note.text);
        continue;
      }
      if (!parts.empty() && parts.back().is_capture) {
        parts.back().what = PieceClass::kText;  // the end of the first would be ambiguous
      } else {
        parts.push_back({true, note.what, ""});
      }
    }
    if (node->has_separator) add_literal(Bytes(&node->separator, 1));
  }
  return parts;
}

std::string TextOf(const std::vector<Part>& parts) {
  std::string text;
  std::set<std::string> names;
  std::string word;
  for (const Part& part : parts) {
    if (!part.is_capture) {
      text += Escaped(part.text);
      word = LastWord(part.text);
      continue;
    }
    std::string name = NameOf(part.what);
    if (NeedsWord(part.what) && !word.empty()) name = word + "_" + name;
    const std::string base = name;
    for (int number = 2; !names.insert(name).second; ++number) name = base + "_" + std::to_string(number);
    text += "{" + name;
    const CaptureType type = TypeOf(part.what);
    if (type != CaptureType::kText) text += std::string(":") + CaptureTypeName(type);
    text += "}";
    word.clear();
  }
  return text.empty() ? "*" : text;
}

// The pattern of the keys of a path, or a wider one if there is none in the grammar.
KeyPattern PatternOf(const std::vector<const Node*>& path, const FamilyStats& stats) {
  const std::vector<Part> parts = PartsOf(path);
  Match match;
  auto pattern = KeyPattern::Parse(TextOf(parts));
  const auto fits = [&](const KeyPattern& candidate) {
    return std::all_of(stats.examples.begin(), stats.examples.end(),
                       [&](const std::string& key) { return candidate.MatchKey(key, match) == Fit::kFits; });
  };
  if (pattern.ok() && fits(pattern.value())) return std::move(pattern.value());
  if (!parts.empty() && !parts[0].is_capture && parts[0].text.size() <= kMostLiteralBytes) {
    pattern = KeyPattern::Parse(Escaped(parts[0].text) + "*");
    if (pattern.ok() && fits(pattern.value())) return std::move(pattern.value());
  }
  return std::move(KeyPattern::Parse("*").value());
}

struct Found {
  KeyPattern pattern;
  KeyStats stats;
};

void Collect(std::vector<const Node*>& path, std::map<std::string, Found>& families) {
  const Node& node = *path.back();
  if (node.stats) {
    FamilyStats all;
    for (const auto& [type, stats] : node.stats->by_type) all.Merge(stats);
    KeyPattern pattern = PatternOf({path.begin() + 1, path.end()}, all);
    const std::string text = pattern.text();
    const auto found = families.find(text);
    if (found == families.end()) {
      families.emplace(text, Found{std::move(pattern), *node.stats});
    } else {
      found->second.stats.Merge(*node.stats);
    }
  }
  for (const auto& [name, child] : node.children) {
    path.push_back(child.get());
    Collect(path, families);
    path.pop_back();
  }
}

bool SameKind(const FamilyStats& a, const FamilyStats& b) {
  return a.Type() == b.Type() && (!a.Kind() || !b.Kind() || a.Kind() == b.Kind());
}

// Why a small family is one of odd keys of another; empty when it is not.
std::string WhyOdd(const Family& small, const Family& host) {
  const uint64_t keys = small.stats.keys;
  uint64_t odd = keys;
  for (const auto& [reason, count] : host.odd) odd += count;
  if (keys * kOddFactor > host.stats.keys || odd * kOddFactor > 2 * host.stats.keys ||
      (keys > kMostOdd && keys * 100 > host.stats.keys)) {
    return "";
  }
  if (!SameKind(small.stats, host.stats)) return "";
  std::string why;
  Match match;
  for (const std::string& key : small.stats.examples) {
    if (host.pattern.MatchKey(key, match) != Fit::kMisfit) return "";
    if (match.values[match.misfit].find_first_of(":/|") != Bytes::npos) return "";
    const Capture& capture = host.pattern.captures()[match.misfit];
    why = capture.name + " is not " + CaptureTypeName(capture.type);
  }
  return why;
}

// A key belongs to the most specific pattern that fits. Alone, 2001:db8::1:60 is an address; beside
// {ip:inet}:{id:int} it is an address and a number.
void MergeIntoOwners(std::vector<Family>& families) {
  if (families.size() > kMostCompared) return;
  std::vector<KeyPattern> patterns;
  for (const Family& family : families) patterns.push_back(family.pattern);
  const PatternSet set(std::move(patterns));
  Match match;
  std::vector<size_t> owners(families.size());
  for (size_t i = 0; i < families.size(); ++i) {
    owners[i] = i;
    std::set<size_t> found;
    for (const std::string& key : families[i].stats.examples) {
      const PatternSet::Owner owner = set.FindOwner(key, match);
      found.insert(owner.fit == Fit::kFits ? owner.pattern : i);
    }
    if (found.size() != 1) continue;
    // The pattern of a few odd keys may fit others by accident: 999.1.2.3 is three numbers.
    const FamilyStats& owner = families[*found.begin()].stats;
    if (owner.keys >= families[i].stats.keys && SameKind(families[i].stats, owner))
      owners[i] = *found.begin();
  }
  for (size_t i = 0; i < families.size(); ++i) {
    // Keys that an owner gives away itself fit another pattern, and need not fit these.
    const size_t owner = owners[i];
    if (owner != i && owners[owner] == owner) {
      families[owner].stats.Merge(std::exchange(families[i].stats, FamilyStats()));
    }
  }
  families.erase(
      std::remove_if(families.begin(), families.end(), [](const Family& f) { return f.stats.keys == 0; }),
      families.end());
}

bool ByKeys(const Family& a, const Family& b) {
  return a.stats.keys != b.stats.keys ? a.stats.keys > b.stats.keys
                                      : std::make_pair(a.pattern.text(), a.stats.Type()) <
                                            std::make_pair(b.pattern.text(), b.stats.Type());
}

}  // namespace

std::vector<Family> FindFamilies(const FamilyTree& tree) {
  std::map<std::string, Found> by_pattern;
  std::vector<const Node*> path = {&tree.root()};
  Collect(path, by_pattern);
  std::map<std::string, std::vector<Family>> by_type;
  for (auto& [text, found] : by_pattern) {
    found.stats.ShareUnknown();
    for (auto& [type, stats] : found.stats.by_type)
      by_type[type].push_back({found.pattern, std::move(stats), {}});
  }
  std::vector<Family> families;
  for (auto& [type, those] : by_type) {
    MergeIntoOwners(those);
    std::move(those.begin(), those.end(), std::back_inserter(families));
  }
  std::sort(families.begin(), families.end(), ByKeys);

  const size_t hosts = std::min(families.size(), kMostHosts);
  std::vector<Family> kept;
  for (size_t i = 0; i < families.size(); ++i) {
    std::string why;
    size_t host = 0;
    for (; host < std::min(hosts, i) && why.empty(); ++host) {
      if (families[host].stats.keys > 0) why = WhyOdd(families[i], families[host]);
    }
    if (why.empty()) continue;
    Family& found = families[host - 1];
    found.odd[why] += families[i].stats.keys;
    for (const auto& [reason, keys] : families[i].odd) found.odd[reason] += keys;
    families[i].stats.examples.clear();
    found.stats.Merge(std::exchange(families[i].stats, FamilyStats()));
  }
  for (Family& family : families) {
    if (family.stats.keys > 0) kept.push_back(std::move(family));
  }
  std::sort(kept.begin(), kept.end(), ByKeys);
  return kept;
}

std::string MaskKey(const KeyPattern& pattern, Bytes key) {
  Match match;
  std::vector<Bytes> hidden = {key};
  if (pattern.MatchKey(key, match) == Fit::kFits && !pattern.has_star()) hidden = match.values;
  std::string masked(key);
  for (const Bytes value : hidden) {
    const auto begin = static_cast<size_t>(value.data() - key.data());
    for (size_t i = begin; i < begin + value.size(); ++i) {
      char& c = masked[i];
      if (IsDigit(c)) {
        c = '0';
      } else if (IsLower(c)) {
        c = 'x';
      } else if (IsUpper(c)) {
        c = 'X';
      } else if (static_cast<unsigned char>(c) >= 0x80) {
        c = '?';
      }
    }
  }
  return Printable(masked);
}

}  // namespace prm
