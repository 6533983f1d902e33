// Settles, when all keys are counted, strays and siblings that a pattern could not tell apart.
#include <algorithm>
#include <map>
#include <utility>

#include "core/capture_type.h"
#include "discover/family_node.h"
#include "discover/randomness.h"

namespace prm {

using namespace family;

namespace {

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

// The first of the segments that a node counts.
std::string FirstText(const Node& node) {
  std::string text;
  for (const Note& note : node.notes) text += note.text;
  return text;
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

}  // namespace

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
  HideIds(*root_, 0);
  ResolveAll(*root_);
}

// A random id may look like a word, a number or a hash. Among many random ids it counts as one of them.
void FamilyTree::AdoptStrays(Node& node, bool (*may_adopt)(const Node& host)) {
  std::vector<std::string> hosts, strays;
  for (const auto& [name, child] : node.children) {
    if (IsHost(*child) && may_adopt(*child)) hosts.push_back(name);
  }
  // The longest beginning first: it is the most specific.
  const auto by_start = [&](const std::string& a, const std::string& b) {
    const Node& x = *node.children.at(a);
    const Node& y = *node.children.at(b);
    const size_t start_of_x = StartOf(x).size(), start_of_y = StartOf(y).size();
    if (start_of_x != start_of_y) return start_of_x > start_of_y;
    return x.keys != y.keys ? x.keys > y.keys : a < b;
  };
  std::sort(hosts.begin(), hosts.end(), by_start);
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
