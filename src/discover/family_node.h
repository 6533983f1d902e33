// Shared by the parts of a family tree: how nodes are named, and what can follow them.
#pragma once

#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include "discover/family_tree.h"

namespace prm::family {

using Node = FamilyTree::Node;
using Note = FamilyTree::Note;

// Fewer different words than this are never merged.
inline constexpr size_t kLeastNames = 10;
// The number of beginnings of tokens that are distinguished under one node.
inline constexpr size_t kMaxStarts = 320;
// Words before tokens have so many letters, unless a mark ends them.
inline constexpr size_t kLeastStart = 4;
inline constexpr size_t kAll = std::numeric_limits<size_t>::max();

// How a node is named among its siblings: a zero byte begins a class, two of them are a zero byte.
void AppendLiteral(std::string& name, Bytes text);
void AppendClass(std::string& name, PieceClass what);
void AppendSeparator(std::string& name, bool has_separator, char separator);
std::string NameOf(const std::vector<Note>& notes, bool has_separator, char separator);

// The bytes that may tell the tokens of one family from those of another: the letters that a token begins
// with, sessZ in sessZ8kq…, or letters and a mark, cus_ in cus_Z8kq…; empty if the token begins with neither
// four letters nor a short word and a mark.
Bytes StartOfToken(Bytes token);

// The name of a node of tokens that begin with `start`, behind a literal.
std::string NameOfStart(Bytes literal, Bytes start, bool has_separator, char separator);

// The literals of a node.
std::string LiteralsOf(const Node& node);

// Classes whose values can look alike, so that a pattern could not tell them apart.
char Lookalikes(PieceClass what);

// The paths that can follow a node, as a sorted set of hashes.
std::vector<uint64_t> PathsOf(const Node& node);

// The letters before the digits at the end of a word such as host17; empty for any other.
Bytes LettersBeforeNumber(Bytes word);

// Cuts `start` to what it has in common with the beginning of the text.
void CutToCommon(std::string& start, Bytes text);

// Whether a node stands for many different segments, and is no name among others.
bool IsFamily(const Node& node);

}  // namespace prm::family
