#include "discover/family_node.h"

#include <algorithm>

#include "discover/letters.h"

namespace prm::family {
namespace {

// Paths below a node that are compared.
constexpr size_t kMaxPaths = 64;
// A longer beginning is cut.
constexpr size_t kMostStart = 16;

uint64_t Mix(uint64_t hash, Bytes text) {
  // FNV-1a: these hashes only decide what is compared.
  for (const char c : text) hash = (hash ^ static_cast<unsigned char>(c)) * 1099511628211U;
  return (hash ^ 0xff) * 1099511628211U;
}

// As NameOf, for nodes whose pieces could not be told apart; names of words play no part in it.
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

}  // namespace

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

Bytes StartOfToken(Bytes token) {
  const size_t most = std::min(token.size(), kMostStart);
  size_t letters = 0;
  while (letters < most && IsLetter(token[letters])) ++letters;
  const bool is_marked = letters >= 2 && letters < most && (token[letters] == '_' || token[letters] == '-');
  if (is_marked) return token.substr(0, letters + 1);
  return letters >= kLeastStart ? token.substr(0, letters) : Bytes();
}

std::string NameOfStart(Bytes literal, Bytes start, bool has_separator, char separator) {
  std::string name;
  AppendLiteral(name, literal);
  // Tokens with one beginning, before it is known whether they are a family.
  name += '\0';
  name += '\x7e';
  AppendLiteral(name, start);
  AppendSeparator(name, has_separator, separator);
  return name;
}

std::string LiteralsOf(const Node& node) {
  std::string text;
  for (const Note& note : node.notes) {
    if (note.what == PieceClass::kLiteral) text += note.text;
  }
  return text;
}

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

std::vector<uint64_t> PathsOf(const Node& node) {
  std::vector<uint64_t> paths;
  AddPaths(node, 14695981039346656037U, paths);
  std::sort(paths.begin(), paths.end());
  paths.erase(std::unique(paths.begin(), paths.end()), paths.end());
  return paths;
}

Bytes LettersBeforeNumber(Bytes word) {
  size_t digits = word.size();
  while (digits > 0 && IsDigit(word[digits - 1])) --digits;
  const size_t length = word.size() - digits;
  if (digits == 0 || length == 0 || length > 18 || (word[digits] == '0' && length > 1)) return {};
  return IsLetter(word[digits - 1]) ? word.substr(0, digits) : Bytes();
}

void CutToCommon(std::string& start, Bytes text) { start.resize(CommonBytes(start, text)); }

bool IsFamily(const Node& node) {
  return node.keys >= kLeastNames &&
         std::any_of(node.notes.begin(), node.notes.end(), [](const Note& note) { return note.varies; });
}

}  // namespace prm::family
