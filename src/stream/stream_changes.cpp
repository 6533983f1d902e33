#include "stream/stream_changes.h"

#include <charconv>
#include <limits>
#include <optional>
#include <utility>

#include "core/position_key.h"
#include "core/printable.h"
#include "rdb/dump.h"
#include "redis/cluster_slots.h"
#include "redis/command_table.h"

namespace prm::stream {

namespace {

using redis::IsSameWord;
using redis::StreamCommand;

std::optional<int64_t> ParseNumber(Bytes digits) {
  int64_t number = 0;
  const char* const end = digits.data() + digits.size();
  const auto [at, failed] = std::from_chars(digits.data(), end, number);
  if (failed != std::errc() || at != end) return std::nullopt;
  return number;
}

std::optional<int> ParseDatabase(Bytes digits) {
  const auto number = ParseNumber(digits);
  if (!number || *number < 0 || *number > std::numeric_limits<int>::max()) return std::nullopt;
  return static_cast<int>(*number);
}

std::optional<size_t> ParseSlot(Bytes digits) {
  const auto number = ParseNumber(digits);
  if (!number || *number < 0 || *number >= static_cast<int64_t>(redis::kClusterSlots)) return std::nullopt;
  return static_cast<size_t>(*number);
}

bool IsKept(const StreamCommand& command, size_t at) {
  return at < command.arguments.size() && command.arguments[at].data() != nullptr;
}

// Whether every argument is there.
bool IsWhole(const StreamCommand& command) {
  if (command.arguments.size() != command.count) return false;
  for (size_t at = 0; at < command.count; ++at)
    if (!IsKept(command, at)) return false;
  return true;
}

// The time of EXAT or PXAT, of EXPIREAT or PEXPIREAT.
std::optional<int64_t> ParseTime(Bytes digits, bool in_seconds) {
  const auto time = ParseNumber(digits);
  const int64_t unit = in_seconds ? 1000 : 1;
  if (!time || *time <= 0 || *time > std::numeric_limits<int64_t>::max() / unit) return std::nullopt;
  return *time * unit;
}

// How a key expires that SET, or another command like it, gives a value.
struct SetOptions {
  std::optional<int64_t> expires_at_ms;
  bool keeps_expiry = false;
};

// The options behind the last value: [condition] [GET] [EX ... | PX ... | EXAT seconds | PXAT milliseconds |
// KEEPTTL]. Nothing: it does not tell when the key expires.
std::optional<SetOptions> ParseSetOptions(const StreamCommand& command, size_t at) {
  SetOptions options;
  for (; at < command.count; ++at) {
    if (!IsKept(command, at)) return std::nullopt;
    const Bytes option = command.arguments[at];
    const bool in_seconds = IsSameWord(option, "EXAT");
    if (in_seconds || IsSameWord(option, "PXAT")) {
      if (!IsKept(command, ++at) || options.expires_at_ms) return std::nullopt;
      options.expires_at_ms = ParseTime(command.arguments[at], in_seconds);
      if (!options.expires_at_ms) return std::nullopt;
    } else if (IsSameWord(option, "IFEQ") || IsSameWord(option, "IFNE") || IsSameWord(option, "IFDEQ") ||
               IsSameWord(option, "IFDNE")) {
      if (++at == command.count) return std::nullopt;
    } else if (IsSameWord(option, "KEEPTTL")) {
      options.keeps_expiry = true;
    } else if (!IsSameWord(option, "NX") && !IsSameWord(option, "XX") && !IsSameWord(option, "GET")) {
      return std::nullopt;
    }
  }
  if (options.keeps_expiry && options.expires_at_ms) return std::nullopt;
  return options;
}

// INCR key, DECR key, INCRBY key number, DECRBY key number, APPEND key value, PERSIST key, EXPIREAT key
// seconds [condition], PEXPIREAT key milliseconds [condition].
void TakeEditOf(const StreamCommand& command, StreamChange& change) {
  const Bytes name = command.arguments[0];
  if (!IsWhole(command)) return;
  const auto edit = [&](Edit how, int64_t amount) {
    change.edit = how;
    change.amount = amount;
  };
  if (command.count == 2) {
    if (IsSameWord(name, "INCR")) edit(Edit::kAdd, 1);
    if (IsSameWord(name, "DECR")) edit(Edit::kAdd, -1);
    if (IsSameWord(name, "PERSIST")) edit(Edit::kPersist, 0);
    return;
  }
  const Bytes argument = command.arguments[2];
  const bool in_seconds = IsSameWord(name, "EXPIREAT");
  if (in_seconds || IsSameWord(name, "PEXPIREAT")) {
    if (const auto time = ParseTime(argument, in_seconds)) edit(Edit::kExpireAt, *time);
  } else if (command.count != 3) {
    return;
  } else if (IsSameWord(name, "APPEND")) {
    edit(Edit::kAppend, 0);
    change.entry.payload = argument;
  } else {
    const auto number = ParseNumber(argument);
    if (number && IsSameWord(name, "INCRBY")) edit(Edit::kAdd, *number);
    if (number && IsSameWord(name, "DECRBY") && *number != std::numeric_limits<int64_t>::min())
      edit(Edit::kAdd, -*number);
  }
}

// RESTORE key ttl payload [REPLACE] [ABSTTL] [IDLETIME seconds] [FREQ frequency]. False if the command does
// not tell the whole new state.
bool TakeRestore(const StreamCommand& command, source::Entry& entry) {
  if (!IsWhole(command) || command.count < 4) return false;
  const auto ttl = ParseNumber(command.arguments[2]);
  if (!ttl || *ttl < 0) return false;
  bool is_absolute = *ttl == 0;
  for (size_t at = 4; at < command.count; ++at) {
    const Bytes option = command.arguments[at];
    if (IsSameWord(option, "ABSTTL")) {
      is_absolute = true;
    } else if (IsSameWord(option, "IDLETIME") || IsSameWord(option, "FREQ")) {
      ++at;
    } else if (!IsSameWord(option, "REPLACE")) {
      return false;
    }
  }
  if (!is_absolute || !rdb::CanDecodeDump(command.arguments[3])) return false;
  entry.payload = command.arguments[3];
  if (*ttl > 0) entry.expires_at_ms = *ttl;
  return true;
}

}  // namespace

StreamChanges::StreamChanges(const StreamPosition& from, const redis::StreamLimits& limits,
                             Interrupts& interrupts)
    : stream_(from.offset, limits, interrupts), interrupts_(interrupts), position_(from), db_(from.db) {}

void StreamChanges::Feed(Bytes bytes, const source::TimeSpan& time) {
  stream_.Feed(bytes);
  time_ = time;
}

Result<bool> StreamChanges::Next(Changes& changes) {
  const Result<bool> next = stream_.Next(command_);
  if (!next.ok() || !next.value()) return next;
  if (!IsKept(command_, 0)) return Malformed();
  PRM_RETURN_IF_ERROR(Take(changes));
  stream_.Release();  // changes have copies of what they need, and may wait
  if (!in_transaction_) position_ = {command_.end, db_};
  return true;
}

Status StreamChanges::TakeAs(Bytes name, const StreamChange& unknown, Changes& changes) {
  command_.arguments.assign(unknown.command.begin(), unknown.command.end());
  command_.arguments[0] = name;
  return Take(changes);
}

Status StreamChanges::Take(Changes& changes) {
  // A command that has more to it than keys.
  struct Special {
    const char* name;
    Status (StreamChanges::*take)(Changes&);
  };
  static constexpr Special kSpecials[] = {
      {"SET", &StreamChanges::TakeStrings},
      {"INCR", &StreamChanges::TakeEdit},
      {"PEXPIREAT", &StreamChanges::TakeEdit},
      {"RESTORE", &StreamChanges::TakeRestored},
      {"RESTORE-ASKING", &StreamChanges::TakeRestored},
      {"DEL", &StreamChanges::TakeDelete},
      {"UNLINK", &StreamChanges::TakeDelete},
      {"RENAME", &StreamChanges::TakeRename},
      {"RENAMENX", &StreamChanges::TakeRename},
      {"MOVE", &StreamChanges::TakeMove},
      {"COPY", &StreamChanges::TakeCopy},
      {"FLUSHDB", &StreamChanges::TakeFlush},
      {"FLUSHALL", &StreamChanges::TakeFlush},
      {"SWAPDB", &StreamChanges::TakeSwap},
      {"SELECT", &StreamChanges::TakeSelect},
      {"MULTI", &StreamChanges::TakeTransaction},
      {"EXEC", &StreamChanges::TakeTransaction},
      {"DECR", &StreamChanges::TakeEdit},
      {"INCRBY", &StreamChanges::TakeEdit},
      {"DECRBY", &StreamChanges::TakeEdit},
      {"APPEND", &StreamChanges::TakeEdit},
      {"EXPIREAT", &StreamChanges::TakeEdit},
      {"PERSIST", &StreamChanges::TakeEdit},
      {"MSET", &StreamChanges::TakeStrings},
      {"MSETNX", &StreamChanges::TakeStrings},
      {"MSETEX", &StreamChanges::TakeStrings},
      {"SETNX", &StreamChanges::TakeStrings},
      {"DELEX", &StreamChanges::TakeDelete},
      {"TRIMSLOTS", &StreamChanges::TakeTrimSlots},
      {"CLUSTER", &StreamChanges::TakeCluster},
  };
  // The server selects a database in between.
  if (begins_transaction_ && !IsNamed("SELECT")) {
    begins_transaction_ = false;
    is_own_ = !migration_.empty() && IsNamed("SET") && IsKept(command_, 1) &&
              IsPositionKeyOf(migration_, command_.arguments[1]);
  }
  for (const Special& special : kSpecials)
    if (IsNamed(special.name)) return (this->*special.take)(changes);
  return TakeElements(changes);
}

// A change for each key that the command writes to.
Status StreamChanges::TakeKeys(ChangeKind kind, Changes& changes) {
  switch (redis::FindWrittenKeys(command_.arguments, command_.count, positions_)) {
    case redis::KeysFound::kAll:
      break;
    case redis::KeysFound::kUnknown:
      return TakeUnknown(ChangeKind::kUnknown, changes);
    case redis::KeysFound::kHidden:
      return TakeUnknown(ChangeKind::kHidden, changes);
    case redis::KeysFound::kInvalid:
      return Malformed();
  }
  for (const size_t position : positions_) {
    interrupts_.CheckInterrupts();
    PRM_RETURN_IF_ERROR(Add(kind, db_, position, changes));
  }
  return {};
}

Status StreamChanges::TakeUnknown(ChangeKind kind, Changes& changes) {
  StreamChange change = MakeChange(kind, db_);
  for (size_t at = 0; at < (kind == ChangeKind::kUnknown ? command_.count : 1); ++at) {
    if (!IsKept(command_, at)) return TooLarge();
    change.command.emplace_back(command_.arguments[at]);
  }
  changes.push_back(std::move(change));
  return {};
}

Status StreamChanges::TakeRestored(Changes& changes) {
  PRM_RETURN_IF_ERROR(TakeKeys(ChangeKind::kChanged, changes));
  StreamChange& change = changes.back();
  change.is_restored = true;
  if (share_.Has(change.entry.key) && TakeRestore(command_, change.entry)) change.kind = ChangeKind::kSet;
  return {};
}

// Strings: each key is followed by its value, and the last value by what all of them have in common.
Status StreamChanges::TakeStrings(Changes& changes) {
  const size_t before = changes.size();
  PRM_RETURN_IF_ERROR(TakeKeys(ChangeKind::kChanged, changes));
  const auto options = ParseSetOptions(command_, positions_.back() + 2);
  if (!options) return {};
  for (size_t i = 0; i < positions_.size(); ++i) {
    StreamChange& change = changes[before + i];
    if (!IsKept(command_, positions_[i] + 1) || !share_.Has(change.entry.key)) continue;
    change.entry.payload = command_.arguments[positions_[i] + 1];
    if (options->keeps_expiry) {
      change.edit = Edit::kReplace;
      continue;
    }
    change.kind = ChangeKind::kSet;
    change.entry.plain = true;
    change.entry.expires_at_ms = options->expires_at_ms;
  }
  return {};
}

Status StreamChanges::TakeEdit(Changes& changes) {
  PRM_RETURN_IF_ERROR(TakeKeys(ChangeKind::kChanged, changes));
  if (!share_.Has(changes.back().entry.key)) return {};
  TakeEditOf(command_, changes.back());
  if (wants_elements_) changes.back().elements = ElementChangesOf(command_);
  return {};
}

Status StreamChanges::TakeElements(Changes& changes) {
  PRM_RETURN_IF_ERROR(TakeKeys(ChangeKind::kChanged, changes));
  if (wants_elements_ && positions_.size() == 1 && share_.Has(changes.back().entry.key))
    changes.back().elements = ElementChangesOf(command_);
  return {};
}

Status StreamChanges::TakeDelete(Changes& changes) { return TakeKeys(ChangeKind::kDelete, changes); }

Status StreamChanges::TakeRename(Changes& changes) {
  PRM_RETURN_IF_ERROR(TakeKeys(ChangeKind::kChanged, changes));
  StreamChange& from = changes[changes.size() - 2];
  // To its own name: servers do not send it, and nothing is gone.
  if (from.entry.key != changes.back().entry.key) from.kind = ChangeKind::kDelete;
  return {};
}

Status StreamChanges::TakeMove(Changes& changes) {
  const auto db = IsKept(command_, 2) ? ParseDatabase(command_.arguments[2]) : std::nullopt;
  if (!db || *db == db_) return Malformed();
  PRM_RETURN_IF_ERROR(Add(ChangeKind::kDelete, db_, 1, changes));
  return Add(ChangeKind::kChanged, *db, 1, changes);
}

// COPY source destination [DB number] [REPLACE].
Status StreamChanges::TakeCopy(Changes& changes) {
  int db = db_;
  for (size_t at = 3; at < command_.arguments.size(); ++at) {
    if (!IsSameWord(command_.arguments[at], "DB")) continue;
    const auto named = IsKept(command_, ++at) ? ParseDatabase(command_.arguments[at]) : std::nullopt;
    if (!named) return Malformed();
    db = *named;
  }
  return Add(ChangeKind::kChanged, db, 2, changes);
}

Status StreamChanges::TakeFlush(Changes& changes) {
  changes.push_back(MakeChange(ChangeKind::kFlush, IsNamed("FLUSHALL") ? kEveryDatabase : db_));
  return {};
}

Status StreamChanges::TakeSwap(Changes& changes) {
  const auto one = IsKept(command_, 1) ? ParseDatabase(command_.arguments[1]) : std::nullopt;
  const auto other = IsKept(command_, 2) ? ParseDatabase(command_.arguments[2]) : std::nullopt;
  if (!one || !other) return Malformed();
  changes.push_back(MakeChange(ChangeKind::kSwap, *one));
  changes.back().other_db = *other;
  return {};
}

// TRIMSLOTS RANGES n first last ...
Status StreamChanges::TakeTrimSlots(Changes& changes) {
  redis::Slots slots;
  if (!IsWhole(command_) || command_.count < 5 || command_.count % 2 == 0) return Malformed();
  for (size_t at = 3; at < command_.count; at += 2) {
    const auto first = ParseSlot(command_.arguments[at]);
    const auto last = ParseSlot(command_.arguments[at + 1]);
    if (!first || !last || *first > *last) return Malformed();
    for (size_t slot = *first; slot <= *last; ++slot) slots.set(slot);
  }
  changes.push_back(MakeChange(ChangeKind::kSlots, db_));
  changes.back().command = {"TRIMSLOTS", redis::SlotsToText(slots)};
  return {};
}

// FLUSHSLOT slot. SETSLOT and SYNCSLOTS tell replicas which slots are moving.
Status StreamChanges::TakeCluster(Changes& changes) {
  const Bytes word = IsKept(command_, 1) ? command_.arguments[1] : Bytes();
  if (IsSameWord(word, "SETSLOT") || IsSameWord(word, "SYNCSLOTS")) return {};
  if (!IsSameWord(word, "FLUSHSLOT")) return TakeUnknown(ChangeKind::kHidden, changes);
  const auto slot = IsKept(command_, 2) ? ParseSlot(command_.arguments[2]) : std::nullopt;
  if (!slot) return Malformed();
  changes.push_back(MakeChange(ChangeKind::kSlots, db_));
  changes.back().command = {"CLUSTER FLUSHSLOT", redis::SlotsToText(redis::Slots().set(*slot))};
  return {};
}

Status StreamChanges::TakeSelect(Changes&) {
  const auto db = IsKept(command_, 1) ? ParseDatabase(command_.arguments[1]) : std::nullopt;
  if (!db) return Malformed();
  db_ = *db;
  return {};
}

Status StreamChanges::TakeTransaction(Changes&) {
  const bool begins = IsNamed("MULTI");
  if (begins == in_transaction_) return Malformed();
  in_transaction_ = begins_transaction_ = begins;
  is_own_ = false;
  return {};
}

bool StreamChanges::IsNamed(Bytes name) const { return IsSameWord(command_.arguments[0], name); }

StreamChange StreamChanges::MakeChange(ChangeKind kind, int db) const {
  StreamChange change;
  change.kind = kind;
  change.entry.db = db;
  change.offset = command_.end;
  change.entry.changed = time_;
  change.is_own = is_own_;
  return change;
}

// Adds a change of the key that is the argument at a position.
Status StreamChanges::Add(ChangeKind kind, int db, size_t position, Changes& changes) {
  if (position >= command_.count) return Malformed();
  if (!IsKept(command_, position)) return TooLarge();
  changes.push_back(MakeChange(kind, db));
  changes.back().entry.key = command_.arguments[position];
  return {};
}

Error StreamChanges::TooLarge() const {
  return {ErrorCode::kTooLarge, "a command of the replication stream is larger than the limit", Place(), {}};
}

Error StreamChanges::Malformed() const {
  return {ErrorCode::kProtocol,
          "a command of the replication stream has arguments that no server sends",
          Place(),
          {}};
}

std::string StreamChanges::Place() const {
  const std::string name =
      IsKept(command_, 0) ? Printable(command_.arguments[0], redis::kShownNameBytes) : "?";
  return "Command \"" + name + "\" with " + std::to_string(command_.count - 1) + " arguments, at byte " +
         std::to_string(command_.begin) + ".";
}

}  // namespace prm::stream
