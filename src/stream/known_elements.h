// Which elements streams and lists have, as the stream of changes or a read has shown, so that commands that
// change their ends without naming the elements need no reading again.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <string>
#include <unordered_map>

#include "source/entry.h"
#include "stream/element_changes.h"

namespace prm::stream {

// The caller must tell it every change of a key's elements, in the order of the stream: all that the key has
// by Note or NoteGone, changes by Resolve, anything else by Forget.
class KnownElements {
 public:
  // most_bytes: what it may take, more or less. Then those keys go that were not used for longest.
  explicit KnownElements(size_t most_bytes) : most_bytes_(most_bytes) {}

  // The whole state of a key. Forgets the key if the value is neither a stream nor a list, or too large.
  void Note(const std::string& name, const source::Entry& entry);
  void NoteGone(const std::string& name);
  void Forget(const std::string& name);
  void Clear();

  // Names the elements at the ends that changes of the key are about. False: that cannot be told, and the key
  // is forgotten.
  bool Resolve(const std::string& name, ElementChanges& changes);

 private:
  struct Elements {
    uint64_t stream_length() const { return ids ? ids->size() : 0; }
    // The entries of a stream that has some: an empty deque takes more than all the rest.
    std::unique_ptr<std::deque<rdb::StreamId>> ids;
    uint64_t length = 0;  // of a list
    size_t bytes = 0;     // as they were counted
  };
  using Keys = std::unordered_map<std::string, Elements>;

  static bool ResolveStream(ElementChanges& changes, Elements& elements);
  static bool ResolveList(ElementChanges& changes, Elements& elements);
  Elements* Find(const std::string& name);
  void Keep(std::string name, Elements elements);
  void Count(const std::string& name, Elements& elements);

  size_t most_bytes_;
  // Keys that were used since the last time that `recent_` was full, and before. A key that is used again
  // moves.
  Keys recent_;
  Keys older_;
  size_t recent_bytes_ = 0;
};

}  // namespace prm::stream
