#include "discover/family_tree.h"

#include <algorithm>
#include <utility>

#include "discover/family_node.h"
#include "discover/letters.h"

namespace prm {

using namespace family;

namespace {

bool HasWordByte(Bytes text) {
  return std::any_of(text.begin(), text.end(), [](char c) {
    return IsLetter(c) || IsDigit(c) || static_cast<unsigned char>(c) >= 0x80;
  });
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

// Names the child for a segment. Of what a token begins with, only so many bytes.
void FamilyTree::NameChild(const Segment& segment, size_t start_bytes) {
  name_.clear();
  if (HasToken(segment)) {
    const Piece& token = shape_.pieces[segment.first_piece + segment.pieces - 1];
    const Bytes start = StartOfToken(token.text).substr(0, start_bytes);
    if (!start.empty()) {
      std::string literal;
      for (size_t i = 0; i + 1 < segment.pieces; ++i) literal += shape_.pieces[segment.first_piece + i].text;
      name_ = NameOfStart(literal, start, segment.has_separator, segment.separator);
      return;
    }
  }
  for (size_t i = 0; i < segment.pieces; ++i) {
    const Piece& piece = shape_.pieces[segment.first_piece + i];
    if (piece.what == PieceClass::kLiteral) {
      AppendLiteral(name_, piece.text);
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
  NameChild(segment, kAll);
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

// The child with the longest beginning of tokens that the segment's token has; nullptr if there is none.
Node* FamilyTree::FindStart(Node& node, const Segment& segment) {
  const Piece& token = shape_.pieces[segment.first_piece + segment.pieces - 1];
  for (size_t bytes = StartOfToken(token.text).size(); bytes-- > kLeastStart;) {
    NameChild(segment, bytes);
    const auto found = node.children.find(name_);
    if (found != node.children.end()) return found->second.get();
  }
  return nullptr;
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
        child = FindStart(*node, segment);
        if (child != nullptr) {
          node = child;
          continue;
        }
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
  if (HasToken(segment))
    child->token_start = StartOfToken(shape_.pieces[segment.first_piece + segment.pieces - 1].text);
  if (!child->token_start.empty()) ++node.token_starts;
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
      if (node->token_starts > node->most_token_starts) child = KeepStarts(*node, kMaxStarts, child);
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
      if (!child->token_start.empty()) ++target.token_starts;
      same = std::move(child);
    }
  }
  if (target.word_children > kMaxWords) Collapse(target, kMaxWords / 2);
  if (target.token_starts > target.most_token_starts) KeepStarts(target, kMaxStarts, nullptr);
}

}  // namespace prm
