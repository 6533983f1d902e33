// The changes that commands of a replication stream make: new states of keys where a command carries them
// whole, otherwise the names of keys to be read again. Facts: redis 7.0 src/replication.c and the commands'
// own files; for later servers the table in redis/command_table.h.
//
// Conditions of SET, MSETEX and DELEX (NX, XX, IFEQ ...) were true when the server sent the command; they are
// not looked at.
// Relative expiries (servers before 7.0) count from a time that is not known here, so that their keys are
// read again.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "core/bytes.h"
#include "core/interrupts.h"
#include "core/status.h"
#include "redis/command_stream.h"
#include "source/entry.h"
#include "stream/element_changes.h"
#include "stream/key_share.h"

namespace prm::stream {

enum class ChangeKind {
  kSet,      // entry is the whole new state of the key, and kRead
  kDelete,   // entry names a key that is gone
  kChanged,  // entry names a key that may have changed in any way, or be gone; `edit` may say how
  kFlush,    // all keys of database entry.db are gone, or of all databases where it is kEveryDatabase
  kSwap,     // databases entry.db and other_db have changed places
  kSlots,  // of a cluster: all keys of some slots are gone from this master, mostly because another has them
  kUnknown,  // a command that this release does not know wrote to keys of entry.db that the server may know
  kHidden,   // as kUnknown, but the server does not know either: a script (servers before 5.0)
};

// How a command of kChanged makes the new state of its key from the old one. A string is missing, too, where
// the key is.
enum class Edit : unsigned char {
  kNone,      // it does not say that
  kAdd,       // to the number that the string is, and 0 where it is missing, `amount` is added
  kAppend,    // entry.payload is appended to the string
  kReplace,   // entry.payload is the string, whatever the value was, and the expiry stays
  kExpireAt,  // the key expires at `amount`, Unix time in milliseconds
  kPersist,   // the key does not expire any more
};

constexpr int kEveryDatabase = -1;

struct StreamChange {
  ChangeKind kind;
  source::Entry entry;  // db, `changed`, and the key but for kFlush, kSwap, kSlots, kUnknown and kHidden
  Edit edit = Edit::kNone;
  int64_t amount = 0;
  // kChanged, if wanted: what becomes of the key's elements, if the command says that.
  std::optional<ElementChanges> elements;
  int other_db = 0;
  // kUnknown, kHidden, kSlots: its name, for kUnknown its arguments, and for kSlots the slots, as SlotsToText
  // says them.
  std::vector<std::string> command;
  bool is_own = false;       // see set_migration
  bool is_restored = false;  // by RESTORE, as which the keys of a slot come to another node
  uint64_t offset = 0;       // of the end of its command: the state holds the stream up to there
};

// Where a reader of the stream can go on: between two commands, outside a transaction.
struct StreamPosition {
  uint64_t offset = 0;  // bytes of the stream before it
  int db = 0;           // selected there
};

class StreamChanges {
 public:
  // interrupts must outlive the object.
  StreamChanges(const StreamPosition& from, const redis::StreamLimits& limits, Interrupts& interrupts);

  // Takes the next bytes of the stream. time: when what ends in them was done.
  void Feed(Bytes bytes, const source::TimeSpan& time);

  // Changes of transactions that begin with SET of a position of this migration are our own: those of its
  // reverse feed.
  void set_migration(std::string name) { migration_ = std::move(name); }

  // Whether changes are to say what becomes of elements.
  void set_wants_elements(bool wants) { wants_elements_ = wants; }

  // Changes of other keys carry no values: somebody else takes them.
  void set_share(const KeyShare& share) { share_ = share; }

  // Appends the changes of the next command, of which there may be none; false: no command is whole yet.
  // Memory: see CommandStream::Next. After an error the object is unusable. Errors: kProtocol (not a stream
  // of commands, or a command with arguments that no server sends), kTooLarge (the name of a key is beyond
  // the limits), with the offset and the name of the command.
  Result<bool> Next(std::vector<StreamChange>& changes);

  // Appends the changes of a command whose name nobody knows, and that a server has renamed. unknown: its
  // change, which Next has returned last. Errors: as Next.
  Status TakeAs(Bytes name, const StreamChange& unknown, std::vector<StreamChange>& changes);

  // The end of the last command that is outside a transaction or ends one: all changes of transactions up to
  // there have been returned.
  const StreamPosition& position() const { return position_; }

  // Whether commands of a transaction (MULTI, or a script) have been returned whose end has not.
  bool in_transaction() const { return in_transaction_; }

 private:
  using Changes = std::vector<StreamChange>;

  Status Take(Changes& changes);
  Status TakeKeys(ChangeKind kind, Changes& changes);
  Status TakeUnknown(ChangeKind kind, Changes& changes);
  Status TakeStrings(Changes& changes);
  Status TakeRestored(Changes& changes);
  Status TakeEdit(Changes& changes);
  Status TakeElements(Changes& changes);
  Status TakeDelete(Changes& changes);
  Status TakeRename(Changes& changes);
  Status TakeMove(Changes& changes);
  Status TakeCopy(Changes& changes);
  Status TakeFlush(Changes& changes);
  Status TakeSwap(Changes& changes);
  Status TakeTrimSlots(Changes& changes);
  Status TakeCluster(Changes& changes);
  Status TakeSelect(Changes& changes);
  Status TakeTransaction(Changes& changes);

  bool IsNamed(Bytes name) const;
  StreamChange MakeChange(ChangeKind kind, int db) const;
  Status Add(ChangeKind kind, int db, size_t position, Changes& changes);
  Error TooLarge() const;
  Error Malformed() const;
  std::string Place() const;

  redis::CommandStream stream_;
  Interrupts& interrupts_;
  redis::StreamCommand command_;   // that is being taken
  std::vector<size_t> positions_;  // of its keys
  StreamPosition position_;
  source::TimeSpan time_;
  int db_;  // selected, also inside a transaction
  bool in_transaction_ = false;
  bool begins_transaction_ = false;  // the next command is its first
  bool is_own_ = false;              // the transaction begins with SET of a position
  std::string migration_;
  bool wants_elements_ = false;
  KeyShare share_;
};

}  // namespace prm::stream
