// The beginnings of tokens, which tell families of ids apart that follow a word without a separator.
#include <algorithm>
#include <map>
#include <utility>

#include "discover/family_node.h"
#include "discover/randomness.h"

namespace prm {

using namespace family;

namespace {

// The word that all tokens of a family begin with; empty if it is none.
Bytes WordBefore(Bytes start) {
  const auto end = std::find_if_not(start.begin(), start.end(), IsLetter);
  const Bytes letters = start.substr(0, static_cast<size_t>(end - start.begin()));
  const bool is_marked = end != start.end() && (*end == '_' || *end == '-');
  if (!IsPlainWord(letters) || (letters.size() < 4 && !is_marked)) return {};
  return start.substr(0, letters.size() + (is_marked ? 1 : 0));
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

}  // namespace

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

}  // namespace prm
