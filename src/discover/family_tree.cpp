#include "discover/family_tree.h"

#include <algorithm>
#include <limits>
#include <map>
#include <utility>

#include "core/capture_type.h"
#include "discover/randomness.h"

namespace prm {
namespace {

using Node = FamilyTree::Node;
using Note = FamilyTree::Note;

// Fewer different words than this are never merged.
constexpr size_t kLeastNames = 10;
// m words with k keys in all are names when m * m >= kNamesFactor * k.
constexpr uint64_t kNamesFactor = 8;
// Paths below a node that are compared.
constexpr size_t kMaxPaths = 64;
constexpr size_t kAll = std::numeric_limits<size_t>::max();
// The number of beginnings of tokens that are distinguished under one node.
constexpr size_t kMaxStarts = 64;
constexpr size_t kStartBytes = 4;

bool IsDigit(char c) { return c >= '0' && c <= '9'; }
bool IsLetter(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }

uint64_t Mix(uint64_t hash, Bytes text) {
  // FNV-1a: these hashes only decide what is compared.
  for (const char c : text) hash = (hash ^ static_cast<unsigned char>(c)) * 1099511628211U;
  return (hash ^ 0xff) * 1099511628211U;
}

// How a node is named among its siblings: a zero byte begins a class, two of them are a zero byte.
void AppendLiteral(std::string& name, Bytes text) {
  for (const char c : text) {
    name += c;
    if (c == '\0') name += c;
  }
}
void AppendClass(std::string& name, PieceClass what) {
  name += '\0';
  name += static_cast<char>(what);
}
void AppendSeparator(std::string& name, bool has_separator, char separator) {
  name += '\0';
  name += has_separator ? separator : '\x7f';
}

// The bytes that may tell the tokens of one family from those of another: sess and cart in sessZ8kq… and
// cartP3x0…, or cus_ in cus_Z8kq…; empty if the token begins with neither four letters nor a short word and a
// mark.
Bytes StartOfToken(Bytes token) {
  const Bytes start = token.substr(0, kStartBytes);
  size_t letters = 0;
  while (letters < start.size() && IsLetter(start[letters])) ++letters;
  if (letters == kStartBytes) return start;
  const bool is_marked =
      letters >= 2 && letters < start.size() && (start[letters] == '_' || start[letters] == '-');
  return is_marked ? start.substr(0, letters + 1) : Bytes();
}

// Tokens with one beginning, before it is known whether they are a family.
void AppendTokenStart(std::string& name, Bytes start) {
  name += '\0';
  name += '\x7e';
  AppendLiteral(name, start);
}

// The word that all tokens of a family begin with; empty if it is none.
Bytes WordBefore(Bytes start) {
  const auto end = std::find_if_not(start.begin(), start.end(), IsLetter);
  const Bytes letters = start.substr(0, static_cast<size_t>(end - start.begin()));
  const bool is_marked = end != start.end() && (*end == '_' || *end == '-');
  if (!IsPlainWord(letters) || (letters.size() < 4 && !is_marked)) return {};
  return start.substr(0, letters.size() + (is_marked ? 1 : 0));
}

std::string NameOf(const std::vector<Note>& notes, bool has_separator, char separator) {
  std::string name;
  for (const Note& note : notes) {
    if (note.what == PieceClass::kLiteral) {
      AppendLiteral(name, note.text);
    } else {
      AppendClass(name, note.what);
    }
  }
  AppendSeparator(name, has_separator, separator);
  return name;
}

bool HasWordByte(Bytes text) {
  return std::any_of(text.begin(), text.end(), [](char c) {
    return IsLetter(c) || IsDigit(c) || static_cast<unsigned char>(c) >= 0x80;
  });
}

// Classes whose values can look alike, so that a pattern could not tell them apart.
char Lookalikes(PieceClass what) {
  switch (what) {
    case PieceClass::kInt:
    case PieceClass::kDigits:
    case PieceClass::kNumber:
    case PieceClass::kHex:
    case PieceClass::kDay:
      return 'n';
    case PieceClass::kUrl:
    case PieceClass::kToken:
    case PieceClass::kBinary:
    case PieceClass::kText:
      return 't';
    default:
      return static_cast<char>(what);
  }
}

// The class of values of both classes.
PieceClass Join(PieceClass a, PieceClass b) {
  if (a == b) return a;
  if (Lookalikes(a) == 't') return PieceClass::kText;
  const auto either = [&](PieceClass what) { return a == what || b == what; };
  if (either(PieceClass::kDigits) && either(PieceClass::kNumber)) return PieceClass::kText;
  if (either(PieceClass::kHex)) return either(PieceClass::kNumber) ? PieceClass::kText : PieceClass::kHex;
  if (either(PieceClass::kDigits)) return PieceClass::kDigits;
  return either(PieceClass::kNumber) ? PieceClass::kNumber : PieceClass::kInt;
}

// As above, for nodes whose pieces could not be told apart; names of words play no part in `kind`.
std::string KindOf(const Node& node) {
  std::string kind;
  if (node.is_word || node.is_text) {
    kind = "w";
  } else {
    for (const Note& note : node.notes) {
      kind += note.what == PieceClass::kLiteral ? note.text : std::string(1, Lookalikes(note.what));
    }
  }
  AppendSeparator(kind, node.has_separator, node.separator);
  return kind;
}

void AddPaths(const Node& node, uint64_t hash, std::vector<uint64_t>& paths) {
  if (paths.size() >= kMaxPaths) return;
  // Keys of unknown type add nothing to compare.
  if (node.stats) {
    for (const auto& [type, stats] : node.stats->by_type) {
      if (!type.empty()) paths.push_back(Mix(hash, "end " + type));
    }
  }
  for (const auto& [name, child] : node.children) AddPaths(*child, Mix(hash, KindOf(*child)), paths);
}

// The paths that can follow a node, as a sorted set of hashes.
std::vector<uint64_t> PathsOf(const Node& node) {
  std::vector<uint64_t> paths;
  AddPaths(node, 14695981039346656037U, paths);
  std::sort(paths.begin(), paths.end());
  paths.erase(std::unique(paths.begin(), paths.end()), paths.end());
  return paths;
}

struct Word {
  const std::string* name;
  const Node* node;
  std::vector<uint64_t> paths;
};

// How many of the words, which are sorted by keys, are names.
size_t CountNames(const std::vector<Word>& words) {
  size_t names = 0;
  uint64_t keys = 0;
  for (size_t i = 0; i < words.size(); ++i) {
    keys += words[i].node->keys;
    const uint64_t m = i + 1;
    if (m >= kLeastNames && m * m >= kNamesFactor * keys) names = i + 1;
  }
  return names;
}

// The common beginning of words that become one, up to a mark inside a word.
std::string CommonStart(Bytes a, Bytes b, size_t least_bytes) {
  size_t i = 0;
  while (i < a.size() && i < b.size() && a[i] == b[i]) ++i;
  const size_t end = std::min(i, least_bytes > 0 ? least_bytes - 1 : 0);
  const size_t mark = a.substr(0, end).find_last_of("_-.");
  return mark == Bytes::npos ? std::string() : std::string(a.substr(0, mark + 1));
}

// The letters before the digits at the end of a word such as host17; empty for any other.
Bytes LettersBeforeNumber(Bytes word) {
  size_t digits = word.size();
  while (digits > 0 && IsDigit(word[digits - 1])) --digits;
  const size_t length = word.size() - digits;
  if (digits == 0 || length == 0 || length > 18 || (word[digits] == '0' && length > 1)) return {};
  return IsLetter(word[digits - 1]) ? word.substr(0, digits) : Bytes();
}

// The classes of the bytes of a text, as bits.
unsigned AlphabetOf(Bytes text) {
  unsigned alphabet = 0;
  for (const char c : text) {
    alphabet |= IsDigit(c)                         ? 1U
                : c >= 'a' && c <= 'z'             ? 2U
                : c >= 'A' && c <= 'Z'             ? 4U
                : c == '-' || c == '_' || c == '=' ? 8U
                                                   : 16U;
  }
  return alphabet;
}

void NoteText(Node& node, Bytes text) {
  node.shortest = node.longest == 0 ? text.size() : std::min(node.shortest, text.size());
  node.longest = std::max(node.longest, text.size());
  node.alphabet |= AlphabetOf(text);
}

void CutToCommon(std::string& start, Bytes text) {
  size_t i = 0;
  while (i < start.size() && i < text.size() && start[i] == text[i]) ++i;
  start.resize(i);
}

// The first of the segments that a node counts.
std::string FirstText(const Node& node) {
  std::string text;
  for (const Note& note : node.notes) text += note.text;
  return text;
}

// Whether a node stands for many different segments, and is no name among others.
bool IsFamily(const Node& node) {
  return node.keys >= kLeastNames &&
         std::any_of(node.notes.begin(), node.notes.end(), [](const Note& note) { return note.varies; });
}

// Whether a node is a capture that others may be values of: alone, or behind a literal if many keys have it.
bool IsHost(const Node& node) {
  const PieceClass what = node.notes.empty() ? PieceClass::kLiteral : node.notes.back().what;
  if (what != PieceClass::kToken && what != PieceClass::kText && what != PieceClass::kHex) return false;
  return node.notes.size() == 1 ||
         (node.notes.size() == 2 && node.notes[0].what == PieceClass::kLiteral && IsFamily(node));
}

// The literal that a host begins with.
Bytes StartOf(const Node& host) { return host.notes.size() == 2 ? Bytes(host.notes[0].text) : Bytes(); }

// Whether the segments of `stray` could be values of a host. What is not random by itself must be rare.
bool IsStray(const Node& stray, const Node& host) {
  if (&stray == &host || stray.is_text || stray.separator != host.separator ||
      stray.has_separator != host.has_separator || stray.shortest < host.shortest ||
      stray.longest > host.longest || (stray.alphabet & ~host.alphabet) != 0 || stray.keys > host.keys) {
    return false;
  }
  const std::string text = FirstText(stray);
  const Bytes start = StartOf(host);
  if (Bytes(text).substr(0, start.size()) != start || text.size() == start.size()) return false;
  const Bytes value = Bytes(text).substr(start.size());
  if (host.notes.back().what == PieceClass::kHex && !FitsType(CaptureType::kHex, value)) return false;
  if (stray.keys * 8 <= host.keys) return true;
  return !IsFamily(stray) && (LooksRandom(value) || (host.shortest == host.longest && value.size() >= 8));
}

std::string LiteralsOf(const Node& node) {
  std::string text;
  for (const Note& note : node.notes) {
    if (note.what == PieceClass::kLiteral) text += note.text;
  }
  return text;
}

bool EndsWithToken(const Node& node) {
  return !node.notes.empty() && node.notes.back().what == PieceClass::kToken;
}

bool IsOneLiteral(const Node& node) {
  return node.notes.size() == 1 && node.notes[0].what == PieceClass::kLiteral;
}

}  // namespace

FamilyTree::Node::Node(const Node& other)
    : NodeFacts(other), stats(other.stats ? std::make_unique<KeyStats>(*other.stats) : nullptr) {
  for (const auto& [name, child] : other.children) children.emplace(name, std::make_unique<Node>(*child));
}

FamilyTree::FamilyTree(const FamilyTree& other)
    : root_(std::make_unique<Node>(*other.root_)),
      nodes_(other.nodes_),
      shrink_at_(other.shrink_at_),
      capped_(other.capped_) {}

void FamilyTree::NameChild(const Segment& segment) {
  name_.clear();
  const bool token = HasToken(segment);
  for (size_t i = 0; i < segment.pieces; ++i) {
    const Piece& piece = shape_.pieces[segment.first_piece + i];
    if (piece.what == PieceClass::kLiteral) {
      AppendLiteral(name_, piece.text);
    } else if (Bytes start; token && !(start = StartOfToken(piece.text)).empty()) {
      AppendTokenStart(name_, start);
    } else {
      AppendClass(name_, piece.what);
    }
  }
  AppendSeparator(name_, segment.has_separator, segment.separator);
}

// Whether a segment ends with a token, and has only literals before it.
bool FamilyTree::HasToken(const Segment& segment) const {
  for (size_t i = 0; i + 1 < segment.pieces; ++i) {
    if (shape_.pieces[segment.first_piece + i].what != PieceClass::kLiteral) return false;
  }
  return segment.pieces > 0 &&
         shape_.pieces[segment.first_piece + segment.pieces - 1].what == PieceClass::kToken;
}

Node* FamilyTree::FindChild(Node& node, const Segment& segment) {
  NameChild(segment);
  auto found = node.children.find(name_);
  if (found != node.children.end()) return found->second.get();
  if (segment.pieces != 1) return nullptr;
  const Piece& piece = shape_.pieces[segment.first_piece];
  if (piece.what != PieceClass::kLiteral) return nullptr;
  const Bytes letters = LettersBeforeNumber(piece.text);
  if (letters.empty()) return nullptr;
  std::string numbered;
  AppendLiteral(numbered, letters);
  AppendClass(numbered, PieceClass::kInt);
  AppendSeparator(numbered, segment.has_separator, segment.separator);
  found = node.children.find(numbered);
  return found == node.children.end() ? nullptr : found->second.get();
}

KeyStats* FamilyTree::Find(Bytes key) {
  FindShape(key, shape_);
  Node* node = root_.get();
  for (const Segment& segment : shape_.segments) {
    Node* child = FindChild(*node, segment);
    if (child == nullptr) {
      // A new token may be one more token, a new word one more of the names that are here already.
      std::string text;
      if (HasToken(segment)) {
        for (size_t i = 0; i + 1 < segment.pieces; ++i)
          AppendLiteral(text, shape_.pieces[segment.first_piece + i].text);
        AppendClass(text, PieceClass::kToken);
      } else {
        AppendClass(text, PieceClass::kText);
      }
      AppendSeparator(text, segment.has_separator, segment.separator);
      const auto found = node->children.find(text);
      if (found == node->children.end()) return nullptr;
      child = found->second.get();
    }
    node = child;
  }
  return node->stats.get();
}

Node& FamilyTree::AddChild(Node& node, const Segment& segment) {
  auto child = std::make_unique<Node>();
  for (size_t i = 0; i < segment.pieces; ++i) {
    const Piece& piece = shape_.pieces[segment.first_piece + i];
    const std::string text(piece.text.substr(0, kMaxShapeBytes));
    child->notes.push_back(
        {piece.what, text, false, piece.what == PieceClass::kToken ? text : std::string()});
    child->is_word = child->is_word || (piece.what == PieceClass::kLiteral && HasWordByte(piece.text));
  }
  child->is_text = segment.pieces == 1 && child->notes[0].what == PieceClass::kText;
  child->separator = segment.separator;
  child->has_separator = segment.has_separator;
  if (child->is_word) ++node.word_children;
  child->token_start = HasToken(segment) &&
                       !StartOfToken(shape_.pieces[segment.first_piece + segment.pieces - 1].text).empty();
  if (child->token_start) ++node.token_starts;
  ++nodes_;
  return *(node.children[name_] = std::move(child));
}

void FamilyTree::Add(Bytes key, const KeyFacts* facts) {
  FindShape(key, shape_);
  Node* node = root_.get();
  Node* overfull = nullptr;
  ++node->keys;
  for (const Segment& segment : shape_.segments) {
    Node* child = FindChild(*node, segment);
    if (child == nullptr && nodes_ >= kMaxNodes * 3 / 2) {
      // At the limit the rest of the key becomes one text.
      capped_ = true;
      const Bytes rest = segment.pieces > 0 ? shape_.pieces[segment.first_piece].text : Bytes();
      const size_t begin = rest.empty() ? key.size() : static_cast<size_t>(rest.data() - key.data());
      shape_.pieces.assign(1, {PieceClass::kText, key.substr(begin)});
      const Segment last{0, 1, 0, false};
      child = FindChild(*node, last);
      if (child == nullptr) child = &AddChild(*node, last);
      ++child->keys;
      node = child;
      break;
    }
    if (child == nullptr) {
      child = &AddChild(*node, segment);
      if (node->word_children > kMaxWords) overfull = node;
      if (node->token_starts > kMaxStarts) child = KeepStarts(*node, kMaxStarts / 2, child);
    } else if (child->notes.size() == segment.pieces) {
      for (size_t i = 0; i < segment.pieces; ++i) {
        Note& note = child->notes[i];
        if (!note.varies && note.what != PieceClass::kLiteral) {
          note.varies = shape_.pieces[segment.first_piece + i].text != note.text;
        }
        if (!note.start.empty()) CutToCommon(note.start, shape_.pieces[segment.first_piece + i].text);
      }
    } else {
      child->notes.back().varies = true;  // host17, counted as host{number}
    }
    ++child->keys;
    Bytes text;
    if (segment.pieces > 0) {
      const Bytes first = shape_.pieces[segment.first_piece].text;
      const Bytes last = shape_.pieces[segment.first_piece + segment.pieces - 1].text;
      text = Bytes(first.data(), static_cast<size_t>(last.data() + last.size() - first.data()));
    }
    NoteText(*child, text);
    node = child;
  }
  if (!node->stats) node->stats = std::make_unique<KeyStats>();
  node->stats->Add(key, facts);
  if (overfull != nullptr) Collapse(*overfull, kMaxWords / 2);
  if (nodes_ > shrink_at_) Shrink();
}

void FamilyTree::Shrink() {
  for (const size_t keep : {kAll, size_t{64}, size_t{16}, size_t{4}, size_t{0}}) {
    CollapseAll(*root_, keep);
    if (nodes_ <= kMaxNodes * 3 / 4) break;
  }
  shrink_at_ = std::max(kMaxNodes, nodes_ + kMaxNodes / 8);
}

void FamilyTree::Finish() {
  SettleStarts(*root_);
  // Before words are merged: an id after a word may look like a word.
  AdoptStrays(*root_, [](const Node& host) { return !StartOf(host).empty(); });
  // Merging words on a level merges the words of the levels below.
  for (size_t before = 0; before != nodes_;) {
    before = nodes_;
    CollapseAll(*root_, kAll);
  }
  ResolveAll(*root_);
  AdoptStrays(*root_, [](const Node&) { return true; });
}

// Keeps the beginnings of tokens that most keys have, and makes the others just tokens. Returns where the
// keys of `child`, if it is given, are then counted.
FamilyTree::Node* FamilyTree::KeepStarts(Node& node, size_t keep, Node* child) {
  std::vector<std::pair<uint64_t, std::string>> starts;
  for (const auto& [name, its] : node.children) {
    if (its->token_start) starts.emplace_back(its->keys, name);
  }
  std::sort(starts.begin(), starts.end());
  starts.resize(starts.size() - std::min(starts.size(), keep));
  for (const auto& [keys, name] : starts) {
    const bool is_child = node.children.at(name).get() == child;
    Node& token = MergeStart(node, name);
    if (is_child) child = &token;
  }
  return child;
}

// Makes the tokens of one beginning just tokens, and returns the node of those.
FamilyTree::Node& FamilyTree::MergeStart(Node& node, const std::string& name) {
  auto start = std::move(node.children.at(name));
  node.children.erase(name);
  --node.token_starts;
  start->token_start = false;
  if (start->is_word) --node.word_children;
  auto& token = node.children[NameOf(start->notes, start->has_separator, start->separator)];
  if (token == nullptr) {
    token = std::move(start);
    if (token->is_word) ++node.word_children;
  } else {
    MergeInto(*token, std::move(start));
  }
  return *token;
}

// Tokens that begin with one word are a family, if they are many; the others are just tokens.
void FamilyTree::SettleStarts(Node& node) {
  std::vector<std::string> starts;
  std::map<std::string, uint64_t> keys;  // by the literals before the token
  for (const auto& [name, child] : node.children) {
    if (child->token_start) starts.push_back(name);
    if (EndsWithToken(*child)) keys[LiteralsOf(*child)] += child->keys;
  }
  for (const std::string& name : starts) {
    const Node& child = *node.children.at(name);
    const std::string word(WordBefore(child.notes.back().start));
    if (!IsFamily(child) || child.keys * kMaxStarts < keys[LiteralsOf(child)] || word.empty()) {
      MergeStart(node, name);
      continue;
    }
    auto family = std::move(node.children.at(name));
    node.children.erase(name);
    --node.token_starts;
    family->token_start = false;
    Note token = family->notes.back();
    token.text.erase(0, word.size());
    token.start.erase(0, word.size());
    family->notes = {{PieceClass::kLiteral, LiteralsOf(*family) + word, false, ""}, std::move(token)};
    if (!family->is_word) ++node.word_children;
    family->is_word = true;
    auto& place = node.children[NameOf(family->notes, family->has_separator, family->separator)];
    if (place == nullptr) {
      place = std::move(family);
    } else {
      --node.word_children;
      MergeInto(*place, std::move(family));
    }
  }
  for (auto& [name, child] : node.children) SettleStarts(*child);
}

// A random id may look like a word, a number or a hash. Among many random ids it counts as one of them.
void FamilyTree::AdoptStrays(Node& node, bool (*may_adopt)(const Node& host)) {
  std::vector<std::string> hosts, strays;
  for (const auto& [name, child] : node.children) {
    if (IsHost(*child) && may_adopt(*child)) hosts.push_back(name);
  }
  const auto by_keys = [&](const std::string& a, const std::string& b) {
    const Node& x = *node.children.at(a);
    const Node& y = *node.children.at(b);
    return x.keys != y.keys ? x.keys > y.keys : a < b;
  };
  std::sort(hosts.begin(), hosts.end(), by_keys);
  for (const std::string& host_name : hosts) {
    if (node.children.find(host_name) == node.children.end()) continue;  // a stray itself
    Node& host = *node.children.at(host_name);
    std::vector<uint64_t> paths;
    strays.clear();
    for (const auto& [name, child] : node.children) {
      if (!IsStray(*child, host)) continue;
      if (paths.empty()) paths = PathsOf(host);
      const std::vector<uint64_t> its = PathsOf(*child);
      if (std::includes(paths.begin(), paths.end(), its.begin(), its.end())) strays.push_back(name);
    }
    for (const std::string& name : strays) {
      auto stray = std::move(node.children.at(name));
      node.children.erase(name);
      if (stray->is_word) --node.word_children;
      const std::string value = FirstText(*stray).substr(StartOf(host).size());
      stray->notes = host.notes;
      stray->notes.back() = {host.notes.back().what, value, false, value};
      MergeInto(host, std::move(stray));
    }
  }
  for (auto& [name, child] : node.children) AdoptStrays(*child, may_adopt);
}

void FamilyTree::CollapseAll(Node& node, size_t keep) {
  // Children may merge while this goes on below, but not at this level.
  for (auto& [name, child] : node.children) CollapseAll(*child, keep);
  Collapse(node, keep);
}

// Merges names, until at most `keep` words are left.
void FamilyTree::Collapse(Node& node, size_t keep) {
  CollapseNumbered(node);
  // Words with the same separator and the same continuations.
  std::map<std::pair<std::string, std::vector<uint64_t>>, std::vector<Word>> groups;
  for (const auto& [name, child] : node.children) {
    if (!child->is_word || child->is_text || IsFamily(*child)) continue;
    std::vector<uint64_t> paths = PathsOf(*child);
    std::string separator;
    AppendSeparator(separator, child->has_separator, child->separator);
    auto& group = groups[{std::move(separator), paths}];
    group.push_back({&name, child.get(), std::move(paths)});
  }
  const auto by_keys = [](const Word& a, const Word& b) {
    return a.node->keys != b.node->keys ? a.node->keys < b.node->keys : *a.name < *b.name;
  };
  std::vector<std::string> names;
  std::vector<std::pair<std::string, std::vector<uint64_t>>> others;  // and what follows them
  for (auto& [what, words] : groups) {
    std::sort(words.begin(), words.end(), by_keys);
    const size_t count = CountNames(words);
    for (size_t i = 0; i < words.size(); ++i) {
      if (i < count) {
        names.push_back(*words[i].name);
      } else {
        others.emplace_back(*words[i].name, std::move(words[i].paths));
      }
    }
  }
  for (const std::string& name : names) MergeWord(node, name);

  // Words that differ from the names only in lacking some continuations are names, too.
  std::vector<std::string> texts;
  for (const auto& [name, child] : node.children) {
    if (child->is_text && child->words >= kLeastNames) texts.push_back(name);
  }
  for (const std::string& text_name : texts) {
    const Node& text = *node.children.at(text_name);
    const std::vector<uint64_t> paths = PathsOf(text);
    const uint64_t most_keys = 8 * (text.keys / text.words) + 8;
    for (const auto& [name, its_paths] : others) {
      const auto found = node.children.find(name);
      if (found == node.children.end()) continue;  // by now one of the names of another text
      const Node& word = *found->second;
      if (word.has_separator == text.has_separator && word.separator == text.separator &&
          word.keys <= most_keys &&
          std::includes(paths.begin(), paths.end(), its_paths.begin(), its_paths.end())) {
        MergeWord(node, name);
      }
    }
  }

  if (node.word_children > keep) {
    capped_ = true;
    std::vector<std::pair<uint64_t, std::string>> words;
    for (const auto& [name, child] : node.children) {
      if (child->is_word && !child->is_text) words.emplace_back(child->keys, name);
    }
    std::sort(words.begin(), words.end());
    words.resize(words.size() - std::min(words.size(), std::min(keep, size_t{64})));
    for (const auto& [keys, name] : words) MergeWord(node, name);
  }
}

// host1 to host17 become host{number}.
void FamilyTree::CollapseNumbered(Node& node) {
  std::map<std::string, std::vector<std::string>> groups;
  for (const auto& [name, child] : node.children) {
    if (!child->is_word || !IsOneLiteral(*child)) continue;
    const Bytes letters = LettersBeforeNumber(child->notes[0].text);
    if (letters.empty()) continue;
    std::string numbered;
    AppendLiteral(numbered, letters);
    AppendClass(numbered, PieceClass::kInt);
    AppendSeparator(numbered, child->has_separator, child->separator);
    groups[numbered].push_back(name);
  }
  for (const auto& [numbered, names] : groups) {
    if (names.size() < kLeastNames) continue;
    for (const std::string& name : names) {
      auto word = std::move(node.children.at(name));
      node.children.erase(name);
      --node.word_children;
      const std::string letters(LettersBeforeNumber(word->notes[0].text));
      word->notes = {{PieceClass::kLiteral, letters, false, ""},
                     {PieceClass::kInt, word->notes[0].text.substr(letters.size()), false, ""}};
      auto& target = node.children[numbered];
      if (target == nullptr) {
        target = std::move(word);
        ++node.word_children;
      } else {
        MergeInto(*target, std::move(word));
      }
    }
  }
}

// Makes a word under the node one of the names there.
void FamilyTree::MergeWord(Node& node, const std::string& name) {
  const auto found = node.children.find(name);
  auto word = std::move(found->second);
  node.children.erase(found);
  --node.word_children;
  if (word->token_start) --node.token_starts;
  word->token_start = false;
  std::string text_name;
  AppendClass(text_name, PieceClass::kText);
  AppendSeparator(text_name, word->has_separator, word->separator);
  size_t bytes = 0;
  for (const Note& note : word->notes) bytes += note.text.size();
  const std::string start = word->notes[0].what == PieceClass::kLiteral ? word->notes[0].text : std::string();
  std::string value;
  for (const Note& note : word->notes) value += note.text;

  auto& text = node.children[text_name];
  if (text == nullptr) {
    text = std::make_unique<Node>();
    ++nodes_;
    text->is_text = true;
    text->separator = word->separator;
    text->has_separator = word->has_separator;
  }
  const Note* const begun = text->notes.size() == 2 ? &text->notes[0] : nullptr;
  const size_t least = text->words > 0 ? std::min(text->least_bytes, bytes) : bytes;
  const std::string common = text->words > 0
                                 ? (begun != nullptr ? CommonStart(begun->text, start, least) : "")
                             : text->keys > 0 ? ""
                                              : CommonStart(start, start, least);
  const bool varies = text->words > 0 || text->keys > 0;
  text->notes.clear();
  if (!common.empty()) text->notes.push_back({PieceClass::kLiteral, common, false, ""});
  text->notes.push_back({PieceClass::kText, value, varies, ""});
  text->least_bytes = least;
  ++text->words;
  word->notes = text->notes;
  MergeInto(*text, std::move(word));
}

// Adds all that is known of `source`, which has the same notes as `target` but for their values.
void FamilyTree::MergeInto(Node& target, std::unique_ptr<Node> source) {
  --nodes_;
  target.keys += source->keys;
  for (size_t i = 0; i < target.notes.size() && i < source->notes.size(); ++i) {
    Note& note = target.notes[i];
    if (note.what == PieceClass::kLiteral) continue;
    note.varies = note.varies || source->notes[i].varies || note.text != source->notes[i].text;
    CutToCommon(note.start, source->notes[i].start);
  }
  target.shortest = std::min(target.shortest, source->shortest);
  target.longest = std::max(target.longest, source->longest);
  target.alphabet |= source->alphabet;
  if (source->is_text && source->words > 0) {
    target.least_bytes =
        target.words > 0 ? std::min(target.least_bytes, source->least_bytes) : source->least_bytes;
    target.words += source->words;
  }
  if (source->stats && target.stats) {
    target.stats->Merge(*source->stats);
  } else if (source->stats) {
    target.stats = std::move(source->stats);
  }
  for (auto& [name, child] : source->children) {
    auto& same = target.children[name];
    if (same != nullptr) {
      // Two texts may have begun differently.
      if (same->is_text && same->notes.size() != child->notes.size()) {
        const Note last = same->notes.back();
        same->notes = {last};
        child->notes = {child->notes.back()};
      } else if (same->is_text && same->notes.size() == 2 && same->notes[0].text != child->notes[0].text) {
        same->notes.erase(same->notes.begin());
        child->notes.erase(child->notes.begin());
      }
      MergeInto(*same, std::move(child));
    } else {
      if (child->is_word && !child->is_text) ++target.word_children;
      if (child->token_start) ++target.token_starts;
      same = std::move(child);
    }
  }
  if (target.word_children > kMaxWords) Collapse(target, kMaxWords / 2);
  if (target.token_starts > kMaxStarts) KeepStarts(target, kMaxStarts / 2, nullptr);
}

// Siblings that a pattern could not tell apart become one: a number among hashes is a hash.
void FamilyTree::ResolveAll(Node& node) {
  std::map<std::string, std::vector<std::string>> groups;
  for (const auto& [name, child] : node.children) {
    std::string kind;
    for (const Note& note : child->notes) {
      if (note.what == PieceClass::kLiteral) {
        AppendLiteral(kind, note.text);
      } else {
        kind += '\0';
        kind += Lookalikes(note.what);
      }
    }
    AppendSeparator(kind, child->has_separator, child->separator);
    groups[kind].push_back(name);
  }
  for (auto& [kind, names] : groups) {
    if (names.size() < 2) continue;
    std::sort(names.begin(), names.end());
    auto joined = std::move(node.children.at(names[0]));
    node.children.erase(names[0]);
    for (size_t k = 1; k < names.size(); ++k) {
      auto other = std::move(node.children.at(names[k]));
      node.children.erase(names[k]);
      for (size_t i = 0; i < joined->notes.size(); ++i) {
        joined->notes[i].what = Join(joined->notes[i].what, other->notes[i].what);
      }
      joined->is_text = joined->is_text || other->is_text;
      if (joined->is_word) --node.word_children;
      MergeInto(*joined, std::move(other));
    }
    const std::string name = NameOf(joined->notes, joined->has_separator, joined->separator);
    auto& place = node.children[name];
    if (place != nullptr) {
      place->notes = {place->notes.back()};  // a text that had a common start
      MergeInto(*place, std::move(joined));
    } else {
      place = std::move(joined);
    }
  }
  for (auto& [name, child] : node.children) ResolveAll(*child);
}

}  // namespace prm
