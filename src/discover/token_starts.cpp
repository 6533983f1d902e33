// The beginnings of tokens, which tell families of ids apart that follow a word without a separator.
//
// Tokens are counted by all the letters that they begin with, in a bounded number of nodes: those that fewest
// tokens have are shortened to where they part from others, so that what many tokens have in common, a word,
// is never lost. At the end, a beginning that far more tokens have than random letters explain is a word.
#include <algorithm>
#include <cmath>
#include <map>
#include <tuple>
#include <utility>

#include "discover/family_node.h"
#include "discover/letters.h"
#include "discover/randomness.h"

namespace prm {

using namespace family;

namespace {

// One in so many of the tokens with the same literal before them must have a word.
constexpr uint64_t kLeastShare = 64;
// Groups of tokens that begin with the same four letters.
constexpr size_t kMostGroups = 32;

// A node of tokens that begin alike, under its name among its siblings.
struct Start {
  std::string text;
  std::string name;
  uint64_t keys;
};
bool operator<(const Start& a, const Start& b) { return std::tie(a.text, a.name) < std::tie(b.text, b.name); }

// The word that all tokens of a family begin with; empty if it is none.
std::string WordBefore(Bytes start) {
  const auto end = std::find_if_not(start.begin(), start.end(), IsLetter);
  const Bytes letters = start.substr(0, static_cast<size_t>(end - start.begin()));
  const bool is_marked = end != start.end() && (*end == '_' || *end == '-');
  if (!IsPlainWord(letters) || (letters.size() < kLeastStart && !is_marked)) return {};
  return std::string(start.substr(0, letters.size() + (is_marked ? 1 : 0)));
}

bool EndsWithToken(const Node& node) {
  return !node.notes.empty() && node.notes.back().what == PieceClass::kToken;
}

// The length at which the beginning at `i` of a sorted list differs from those that do not begin with it.
size_t PartsAt(const std::vector<Start>& starts, size_t i) {
  const Bytes text = starts[i].text;
  size_t common = i > 0 ? CommonBytes(text, starts[i - 1].text) : 0;
  for (size_t next = i + 1; next < starts.size(); ++next) {
    const size_t its = CommonBytes(text, starts[next].text);
    if (its == text.size()) continue;
    common = std::max(common, its);
    break;
  }
  return common;
}

// Tokens that begin with the same four letters, or short word and mark, after the same literal.
std::string GroupOf(const Node& node) {
  return NameOfStart(LiteralsOf(node), Bytes(node.token_start).substr(0, kLeastStart), node.has_separator,
                     node.separator);
}

// Finds the words of tokens among sorted beginnings.
class WordFinder {
 public:
  struct Found {
    std::string word;
    std::vector<std::string> names;  // of the nodes whose tokens it begins
  };

  explicit WordFinder(uint64_t least_keys) : least_keys_(std::max<uint64_t>(least_keys, kLeastNames)) {}

  // Appends to `rest` the names of nodes without a word, and returns how many keys these have.
  uint64_t Find(const Start* begin, const Start* end, std::vector<std::string>& rest) {
    const size_t common = CommonBytes(begin->text, (end - 1)->text);
    std::vector<std::string> own;
    uint64_t own_keys = 0;
    const Start* at = begin;
    for (; at < end && at->text.size() == common; ++at) Take(*at, own, own_keys);
    std::vector<Branch> branches;
    for (; at < end; ++at) {
      if (branches.empty() || branches.back().begin->text[common] != at->text[common])
        branches.push_back({at, at, 0});
      branches.back().end = at + 1;
      branches.back().keys += at->keys;
    }
    std::sort(branches.begin(), branches.end(),
              [](const Branch& a, const Branch& b) { return a.keys < b.keys; });
    // A next letter is random if about as many tokens have it as have other letters, or each of ten digits.
    auto most = static_cast<double>(own_keys) / 10;
    bool is_random = true;
    for (const Branch& branch : branches) {
      const auto keys = static_cast<double>(branch.keys);
      is_random = is_random && (branch.keys < kLeastNames || keys < most + 3 * std::sqrt(most) + 5);
      most = std::max(most, keys);
      if (is_random) {
        for (const Start* start = branch.begin; start < branch.end; ++start) Take(*start, own, own_keys);
      } else {
        own_keys += Find(branch.begin, branch.end, own);
      }
    }
    const std::string word = WordBefore(Bytes(begin->text).substr(0, common));
    if (!word.empty() && own_keys >= least_keys_) {
      found_.push_back({word, std::move(own)});
      return 0;
    }
    rest.insert(rest.end(), own.begin(), own.end());
    return own_keys;
  }

  const std::vector<Found>& found() const { return found_; }

 private:
  struct Branch {
    const Start* begin;
    const Start* end;
    uint64_t keys;
  };

  static void Take(const Start& start, std::vector<std::string>& names, uint64_t& keys) {
    names.push_back(start.name);
    keys += start.keys;
  }

  uint64_t least_keys_;
  std::vector<Found> found_;
};

}  // namespace

// Keeps about so many beginnings of tokens, and returns where the keys of `child`, if it is given, are then
// counted.
FamilyTree::Node* FamilyTree::KeepStarts(Node& node, size_t keep, Node* child) {
  struct Group {
    uint64_t keys = 0;
    std::vector<Start> starts;
  };
  std::map<std::string, Group> groups;
  for (const auto& [name, its] : node.children) {
    if (its->token_start.empty()) continue;
    Group& group = groups[GroupOf(*its)];
    group.keys += its->keys;
    group.starts.push_back({its->token_start, name, its->keys});
  }
  // From then on the keys of `child` are counted in the node that it becomes.
  const auto move = [&](const std::string& name, const auto& to) -> Node& {
    const bool is_child = node.children.at(name).get() == child;
    Node& place = to();
    if (is_child) child = &place;
    return place;
  };
  std::vector<std::pair<uint64_t, std::string>> by_keys;
  for (const auto& [name, group] : groups) by_keys.emplace_back(group.keys, name);
  std::sort(by_keys.begin(), by_keys.end());
  const size_t most_groups = std::min(kMostGroups, keep);
  for (size_t i = 0; i + most_groups < by_keys.size(); ++i) {
    const auto group = groups.find(by_keys[i].second);
    for (const Start& start : group->second.starts) {
      move(start.name, [&]() -> Node& { return MergeStart(node, start.name); });
    }
    groups.erase(group);
  }
  const size_t in_group = std::min<size_t>(80, keep / std::max<size_t>(groups.size(), 1));
  for (auto& [group_name, group] : groups) {
    std::vector<Start>& starts = group.starts;
    std::sort(starts.begin(), starts.end());
    while (starts.size() > in_group) {
      // The fewest keys; of equal ones the one that parts from others last.
      size_t lightest = starts.size(), at = 0;
      for (size_t i = 0; i < starts.size(); ++i) {
        if (lightest < starts.size() && starts[i].keys > starts[lightest].keys) continue;
        const size_t parts_at = PartsAt(starts, i);
        if (parts_at < std::min(kLeastStart, starts[i].text.size()) || parts_at == starts[i].text.size())
          continue;
        if (lightest < starts.size() && starts[i].keys == starts[lightest].keys && parts_at <= at) continue;
        lightest = i;
        at = parts_at;
      }
      if (lightest == starts.size()) break;
      const std::string text = starts[lightest].text.substr(0, at);
      const std::string& name = starts[lightest].name;
      Node& place = move(name, [&]() -> Node& { return ShortenStart(node, name, text); });
      starts.erase(starts.begin() + static_cast<std::ptrdiff_t>(lightest));
      const auto same = std::lower_bound(starts.begin(), starts.end(), text,
                                         [](const Start& a, const std::string& b) { return a.text < b; });
      if (same != starts.end() && same->text == text) {
        same->keys = place.keys;
      } else {
        starts.insert(same, {text, NameOfStart(LiteralsOf(place), text, place.has_separator, place.separator),
                             place.keys});
      }
    }
  }
  node.most_token_starts = node.token_starts + 64;
  return child;
}

void FamilyTree::KeepStartsAll(Node& node, size_t keep) {
  if (node.token_starts > keep) KeepStarts(node, keep, nullptr);
  for (auto& [name, child] : node.children) KeepStartsAll(*child, keep);
}

// Counts the tokens of one beginning with all that begin with `start`, which is shorter, and returns the node
// of those.
FamilyTree::Node& FamilyTree::ShortenStart(Node& node, const std::string& name, Bytes start) {
  auto longer = std::move(node.children.at(name));
  node.children.erase(name);
  auto& place =
      node.children[NameOfStart(LiteralsOf(*longer), start, longer->has_separator, longer->separator)];
  if (place == nullptr) {
    place = std::move(longer);
    place->token_start = start;
  } else {
    --node.token_starts;
    if (longer->is_word) --node.word_children;
    MergeInto(*place, std::move(longer));
  }
  return *place;
}

// Makes the tokens of one beginning just tokens, and returns the node of those.
FamilyTree::Node& FamilyTree::MergeStart(Node& node, const std::string& name) {
  auto start = std::move(node.children.at(name));
  node.children.erase(name);
  --node.token_starts;
  start->token_start.clear();
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

// Makes the tokens of one beginning a part of the family of a word that they begin with.
void FamilyTree::MakeFamily(Node& node, const std::string& name, const std::string& word) {
  auto family = std::move(node.children.at(name));
  node.children.erase(name);
  --node.token_starts;
  family->token_start.clear();
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

// Tokens that begin with one word are a family, if they are many; the others are just tokens.
void FamilyTree::SettleStarts(Node& node) {
  std::map<std::string, std::vector<Start>> groups;
  std::map<std::string, uint64_t> keys;  // by the literals before the token
  for (const auto& [name, child] : node.children) {
    if (EndsWithToken(*child)) keys[LiteralsOf(*child)] += child->keys;
    if (child->token_start.empty()) continue;
    // Their common beginning may be longer than the one by which they were counted.
    const Bytes start = StartOfToken(child->notes.back().start);
    groups[GroupOf(*child)].push_back(
        {start.size() > child->token_start.size() ? std::string(start) : child->token_start, name,
         child->keys});
  }
  for (auto& [group, starts] : groups) {
    std::sort(starts.begin(), starts.end());
    WordFinder finder(keys[LiteralsOf(*node.children.at(starts.front().name))] / kLeastShare);
    std::vector<std::string> rest;
    finder.Find(starts.data(), starts.data() + starts.size(), rest);
    for (const WordFinder::Found& found : finder.found()) {
      for (const std::string& name : found.names) MakeFamily(node, name, found.word);
    }
    for (const std::string& name : rest) MergeStart(node, name);
  }
  for (auto& [name, child] : node.children) SettleStarts(*child);
}

}  // namespace prm
