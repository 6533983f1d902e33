// Gathers keys into families while their names pass by, in bounded memory.
//
// A tree with a level for each segment of a key (core/key_shape.h). Segments with the same shape share a
// node: all UUIDs one, all e-mails another, each word its own. Where many different words stand side by side,
// what follows them tells names from the vocabulary of the application: words with the same continuations
// become one node when they are many and each of them has few keys, so that user:alice, user:bob and a
// thousand more become user:{name}, while user:email:{email} stays what it is. Random ids that follow a word
// without a separator, as in sessZ8kq… and cartP3x0…, are told apart by that word, also where one word begins
// with another, as in userZ8kq… and usersP3x0….
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "discover/family_stats.h"
#include "discover/key_shape.h"

namespace prm {

class FamilyTree {
 public:
  // About 1 kB each. When they cannot be made fewer, half as many more are added, and then the rest of each
  // new key is taken for some text.
  static constexpr size_t kMaxNodes = 20000;
  // Different words under one node, until they are looked at.
  static constexpr size_t kMaxWords = 1024;

  // A piece of a segment, for all keys that pass through the node.
  struct Note {
    PieceClass what;
    std::string text;     // of a literal; otherwise the first value
    bool varies = false;  // there were different values
    std::string start;    // of a token: what all values begin with
  };

  struct NodeFacts {
    std::vector<Note> notes;
    char separator = 0;
    bool has_separator = false;
    bool is_word = false;     // has letters or digits of its own
    bool is_text = false;     // stands for different words
    std::string token_start;  // what tokens begin with that may be a family of their own; empty: none
    uint64_t keys = 0;
    uint64_t words = 0;      // of a text: how many it stands for
    size_t least_bytes = 0;  // of a text: the length of the shortest
    size_t word_children = 0;
    size_t token_starts = 0;        // children with a token_start
    size_t most_token_starts = 64;  // more of them are looked at
    // About the segments that are counted here:
    size_t shortest = 0;
    size_t longest = 0;
    unsigned alphabet = 0;  // classes of bytes, as bits
  };

  struct Node : NodeFacts {
    Node() = default;
    Node(const Node& other);  // with all that is below it

    std::unordered_map<std::string, std::unique_ptr<Node>> children;
    std::unique_ptr<KeyStats> stats;  // of the keys that end here
  };

  FamilyTree() : root_(std::make_unique<Node>()) {}
  FamilyTree(const FamilyTree& other);

  // The statistics that a key would be counted in; nullptr when it is the first of its kind.
  KeyStats* Find(Bytes key);

  // Counts a key; facts as in FamilyStats::Add.
  void Add(Bytes key, const KeyFacts* facts);

  // Settles what is a name and what is a word. No key may be added afterwards.
  void Finish();

  const Node& root() const { return *root_; }
  size_t nodes() const { return nodes_; }

  // Whether names had to be taken together that may have meant different things, to stay within the limits.
  bool capped() const { return capped_; }

 private:
  Node* FindChild(Node& node, const Segment& segment);
  Node& AddChild(Node& node, const Segment& segment);
  Node* FindStart(Node& node, const Segment& segment);
  void NameChild(const Segment& segment, size_t start_bytes);
  bool HasToken(const Segment& segment) const;
  Node* KeepStarts(Node& node, size_t keep, Node* child);
  void KeepStartsAll(Node& node, size_t keep);
  Node& ShortenStart(Node& node, const std::string& name, Bytes start);
  Node& MergeStart(Node& node, const std::string& name);
  void MakeFamily(Node& node, const std::string& name, const std::string& word);
  void SettleStarts(Node& node);
  void Shrink();
  void CollapseAll(Node& node, size_t keep);
  void Collapse(Node& node, size_t keep);
  void CollapseNumbered(Node& node);
  void MergeWord(Node& node, const std::string& name);
  void MergeInto(Node& target, std::unique_ptr<Node> source);
  void ResolveAll(Node& node);
  void AdoptStrays(Node& node, bool (*may_adopt)(const Node& host));
  void HideIds(Node& node, size_t spent);

  std::unique_ptr<Node> root_;
  size_t nodes_ = 1;
  size_t shrink_at_ = kMaxNodes;
  bool capped_ = false;
  KeyShape shape_;
  std::string name_;  // that NameChild made
};

}  // namespace prm
