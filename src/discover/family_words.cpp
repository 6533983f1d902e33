// Words that become names: those that are many, with few keys each, and have the same continuations.
#include <algorithm>
#include <map>
#include <utility>

#include "discover/family_node.h"

namespace prm {

using namespace family;

namespace {

// m words with k keys in all are names when m * m >= kNamesFactor * k.
constexpr uint64_t kNamesFactor = 8;

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
  const size_t end = std::min(CommonBytes(a, b), least_bytes > 0 ? least_bytes - 1 : 0);
  const size_t mark = a.substr(0, end).find_last_of("_-.");
  return mark == Bytes::npos ? std::string() : std::string(a.substr(0, mark + 1));
}

bool IsOneLiteral(const Node& node) {
  return node.notes.size() == 1 && node.notes[0].what == PieceClass::kLiteral;
}

}  // namespace

void FamilyTree::Shrink() {
  for (size_t keep = kMaxStarts / 4; keep > 0 && nodes_ > kMaxNodes * 3 / 4; keep /= 4)
    KeepStartsAll(*root_, keep);
  for (const size_t keep : {kAll, size_t{64}, size_t{16}, size_t{4}, size_t{0}}) {
    CollapseAll(*root_, keep);
    if (nodes_ <= kMaxNodes * 3 / 4) break;
  }
  shrink_at_ = std::max(kMaxNodes, nodes_ + kMaxNodes / 8);
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
    if (!child->is_word || child->is_text || !child->token_start.empty() || IsFamily(*child)) continue;
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
  if (!word->token_start.empty()) --node.token_starts;
  word->token_start.clear();
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

}  // namespace prm
