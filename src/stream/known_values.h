// Small values, and names of elements, that the stream or a read has shown, so that commands that only say
// how a value changes need no reading again.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <unordered_map>

#include "core/bytes.h"
#include "source/entry.h"
#include "stream/known_elements.h"
#include "stream/stream_changes.h"

namespace prm::stream {

// The caller must tell it every change of a key, in the order of the stream: its newest state by Note or
// NoteGone, how it changes by Apply, anything else by Forget.
class KnownValues {
 public:
  // most_bytes: what it may take, more or less. Then those go that were not used for longest.
  explicit KnownValues(size_t most_bytes) : most_bytes_(most_bytes), elements_(most_bytes / 4) {}

  // Whether changes of elements are to be resolved.
  void set_wants_elements(bool wants) { wants_elements_ = wants; }

  // The whole state of a key. Forgets the key if the value is not small, or entry not kRead.
  void Note(const source::Entry& entry);
  void NoteGone(int db, Bytes key);
  void Forget(int db, Bytes key);
  void Clear();

  // Applies an edit to the known state of its key: the entry, which has database and key, and the text of the
  // edit as its payload, becomes the whole new state, which is noted. False: that cannot be told; the entry
  // is as it was, and the key is forgotten. A server sends only edits that succeeded.
  bool Apply(Edit edit, int64_t amount, source::Entry& entry);

  // Takes changes of elements, see KnownElements::Resolve. Of the value, nothing is known any more.
  bool Resolve(int db, Bytes key, ElementChanges& changes);

 private:
  struct Value {
    bool is_there = false;
    bool plain = false;  // as Entry's
    std::string payload;
    std::optional<int64_t> expires_at_ms;
  };
  using Values = std::unordered_map<std::string, Value>;

  static std::string NameOf(int db, Bytes key);
  static bool Change(Edit edit, int64_t amount, Bytes text, Value& value);
  Value* Find(const std::string& name);
  void Keep(std::string name, Value value);
  void Forget(const std::string& name);
  void ForgetValue(const std::string& name);

  size_t most_bytes_;
  // Values that were used since the last time that `recent_` was full, and before. A value that is used again
  // moves.
  Values recent_;
  Values older_;
  size_t recent_bytes_ = 0;
  bool wants_elements_ = false;
  KnownElements elements_;
};

}  // namespace prm::stream
