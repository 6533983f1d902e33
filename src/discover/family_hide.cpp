// Hides, when all keys are counted, what may be an id although it reads like a word.
//
// Nothing tells the only session of an application from one of its words, if the letters look alike. So a
// segment is shown as it is only if it consists of known words, if it is short, or if so many keys have it
// that it is part of how the application names its keys. Anything else becomes a token.
#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "discover/family_node.h"
#include "discover/literal_text.h"

namespace prm {

using namespace family;

namespace {

// So many keys do not stand under one id, unless other ids stand beside it.
constexpr uint64_t kStructureFrom = 100;
// Short segments of one key may be the pieces of an id.
constexpr size_t kMostUnknownOfKey = 12;

// The text of a segment that would be shown, with a blank for each capture.
std::string ShownText(const Node& node) {
  std::string text;
  for (const Note& note : node.notes) text += note.what == PieceClass::kLiteral ? note.text : " ";
  return text;
}

bool HasToken(const Node& node) {
  return std::any_of(node.notes.begin(), node.notes.end(), [](const Note& note) {
    return note.what == PieceClass::kToken || note.what == PieceClass::kText;
  });
}

bool EndsWith(const Node& node, char separator) { return node.has_separator && node.separator == separator; }

// Whether a token follows, with nothing but slashes on the way.
bool IsBeforeToken(const Node& node) {
  return EndsWith(node, '/') &&
         std::any_of(node.children.begin(), node.children.end(), [](const auto& child) {
           return HasToken(*child.second) || IsBeforeToken(*child.second);
         });
}

// Decides about the segments that follow one node.
class Showing {
 public:
  Showing(const Node& parent, size_t spent)
      : spent_(spent),
        follows_at_(EndsWith(parent, '@') && !parent.notes.empty()),
        follows_token_(EndsWith(parent, '/') && HasToken(parent)) {
    size_t unknown = 0;
    for (const auto& [name, child] : parent.children) {
      if (UnknownBytes(ShownText(*child)) > kMostUnknownBytes) ++unknown;
    }
    among_ids_ = unknown >= kLeastNames;
  }

  // The unknown bytes of the segment, unless it is structure.
  size_t UnknownOf(const Node& node) const {
    const size_t unknown = UnknownBytes(ShownText(node));
    const bool is_structure =
        node.keys >= kStructureFrom && unknown <= (among_ids_ ? kMostUnknownBytes : kMostUnknownOfMany);
    return is_structure ? 0 : unknown;
  }

  bool MayShow(const Node& node) const {
    if (LiteralsOf(node).empty()) return true;
    // Parts of an e-mail address that was not recognised.
    if (follows_at_ || EndsWith(node, '@')) return false;
    const size_t unknown = UnknownOf(node);
    // What stands beside a token may be a part of it: base64 has slashes.
    if (HasToken(node) || follows_token_ || IsBeforeToken(node)) return unknown == 0;
    return unknown <= (node.notes.size() > 1 ? kMostUnknownBytes / 2 : kMostUnknownBytes) &&
           spent_ + unknown <= kMostUnknownOfKey;
  }

 private:
  size_t spent_;
  bool follows_at_;
  bool follows_token_;
  bool among_ids_;
};

}  // namespace

// `spent`: the unknown bytes that are shown of the segments before.
void FamilyTree::HideIds(Node& node, size_t spent) {
  const Showing showing(node, spent);
  std::vector<std::string> hidden;
  for (const auto& [name, child] : node.children) {
    if (showing.MayShow(*child)) continue;
    if (child->is_text) {
      child->notes.erase(child->notes.begin(), child->notes.end() - 1);
    } else {
      hidden.push_back(name);
    }
  }
  std::sort(hidden.begin(), hidden.end());
  for (const std::string& name : hidden) {
    auto id = std::move(node.children.at(name));
    node.children.erase(name);
    if (id->is_word) --node.word_children;
    id->is_word = false;
    std::string value;
    bool varies = false;
    for (const Note& note : id->notes) {
      value += note.text;
      varies = varies || note.varies;
    }
    id->notes = {{PieceClass::kToken, value, varies, value}};
    auto& token = node.children[NameOf(id->notes, id->has_separator, id->separator)];
    if (token == nullptr) {
      token = std::move(id);
    } else {
      MergeInto(*token, std::move(id));
    }
  }
  for (const auto& [name, child] : node.children) HideIds(*child, spent + showing.UnknownOf(*child));
}

}  // namespace prm
