#include "live/unapplied.h"

#include "connect/spool_files.h"
#include "mapping/family_state.h"
#include "pg/arguments.h"
#include "pg/background.h"
#include "pg/memory.h"
#include "pg/rollback.h"
#include "pg/settings.h"
#include "pg/spi.h"
#include "pg/transaction.h"
#include "pg/wait.h"
#include "run/late_writes.h"
#include "stream/known_values.h"
#include "stream/stream_changes.h"
#include "stream/stream_spool.h"

namespace prm {

using pg::Spi;
using source::EntryState;
using stream::ChangeKind;
using stream::StreamChange;

namespace {

constexpr size_t kAtOnce = 2000;
constexpr size_t kKnownBytes = size_t{8} << 20;
constexpr int kMostTries = 5;
constexpr long kTryPauseMs = 100;

class Unapplied : public Interrupts {
 public:
  Unapplied(const Migration &migration, const Routing &routing, const LiveRecord &record)
      : migration_(migration),
        routing_(routing),
        record_(record.run_id(), record.link()),  // of all keys
        filter_(routing, std::nullopt),
        store_(migration, routing) {}

  // Returns why it is not known what was received; empty: it is.
  std::string Keep() {
    std::optional<LivePosition> const position = record_.ReadLowest();
    std::map<KeyId, KeyAhead> const unread = record_.ReadKeysAhead();
    further_ = record_.ReadEarlierShares();
    Spi::Commit();
    if (!position) return {};
    // They have changed, and may have gone without a command for each. Keys of a cluster wait because their
    // slots are being moved.
    for (const auto &[id, key] : unread) {
      if (key.kind == KeyAhead::kStored)
        stored_[id] = key.read_offset;
      else if (record_.link() == 0)
        Take(id.first, id.second);
    }
    SpoolFiles spool(record_.run_id(), record_.link());
    auto const reader = pg::ValueOrThrow(stream::StreamSpoolReader::Open(spool, position->point));
    if (reader != nullptr) Read(*reader, *position);
    Store();
    return reader != nullptr ? std::string()
                             : "the spool does not have the stream from offset " +
                                   std::to_string(position->point.offset) + " on";
  }

  void CheckInterrupts() override { pg::CheckInterrupts(); }

 private:
  struct Write {
    source::Entry entry;
    bool is_gone = false;
    bool only_expiry = false;
    bool is_older = false;  // as that of LateWrite
  };

  void Read(stream::StreamSpoolReader &reader, const LivePosition &from) {
    redis::StreamLimits limits;
    limits.max_argument_bytes = static_cast<uint64>(pg::settings::max_value_size_kb) * 1024;
    stream::StreamChanges changes({from.point.offset, from.db}, limits, *this);
    changes.set_migration(migration_.name);
    std::vector<StreamChange> found;
    stream::SpoolChunk chunk;
    for (;; found.clear()) {
      if (pg::ValueOrThrow(changes.Next(found))) {
        for (StreamChange &change : found) Take(change);
        if (writes_.size() >= kAtOnce || bytes_ >= static_cast<uint64>(pg::settings::batch_size_kb) * 1024)
          Store();
        continue;
      }
      if (!pg::ValueOrThrow(reader.Next(chunk)) || chunk.kind == stream::SpoolChunk::Kind::kFullSync) return;
      if (chunk.kind == stream::SpoolChunk::Kind::kBytes) changes.Feed(chunk.content, chunk.time);
    }
  }

  bool IsApplied(const StreamChange &change) const {
    return std::any_of(further_.begin(), further_.end(), [&](const AppliedShare &share) {
      return change.offset <= share.point.offset && share.share.Has(change.entry.key);
    });
  }

  // Whether the rows, or a late write, show it already, because the key was read later.
  bool IsStored(const StreamChange &change) const {
    auto const stored = stored_.find({change.entry.db, change.entry.key});
    return stored != stored_.end() && change.offset <= stored->second;
  }

  // A key that was read after this does not show what it has replaced.
  void TakeOwn(const StreamChange &change) {
    const source::Entry &entry = change.entry;
    known_.Forget(entry.db, entry.key);
    if (IsStored(change) && writes_.count({entry.db, entry.key}) == 0)
      Take(entry.db, entry.key).is_older = true;
  }

  // What the reverse feed writes over it stays a late write.
  void Take(StreamChange &change) {
    source::Entry &entry = change.entry;
    bool const is_gone = change.kind == ChangeKind::kDelete;
    // Those of other kinds may change any key.
    if (!is_gone && change.kind != ChangeKind::kSet && change.kind != ChangeKind::kChanged)
      return known_.Clear();
    if (IsApplied(change)) return;
    if (change.is_own) return TakeOwn(change);
    if (IsStored(change)) return;
    bool const only_expiry = change.edit == stream::Edit::kExpireAt || change.edit == stream::Edit::kPersist;
    bool is_known = change.kind == ChangeKind::kSet;
    if (is_known)
      known_.Note(entry);
    else if (is_gone)
      known_.NoteGone(entry.db, entry.key);
    else if (!(is_known = known_.Apply(change.edit, change.amount, entry)))
      known_.Forget(entry.db, entry.key);
    // Keys of a slot that moves come and go without having been written to.
    if (record_.link() != 0 && (change.is_restored || is_gone)) return;
    auto const found = writes_.find({entry.db, entry.key});
    bool const is_more = only_expiry && found != writes_.end() && !found->second.only_expiry;
    if (is_more && !is_known) return;
    Write &write = Take(entry.db, entry.key);
    write.is_gone = is_gone;
    write.only_expiry = only_expiry && !is_more;
    if (!is_known) return;
    uint64 const route = write.entry.route;
    write.entry = std::move(entry);
    write.entry.route = route;
    bytes_ += write.entry.payload.size();
  }

  // Its value is not known yet.
  Write &Take(int db, const std::string &key) {
    source::Entry entry;
    entry.db = db;
    entry.key = key;
    entry.state = EntryState::kChanging;
    entry.route = filter_.Classify(db, key).route;
    bytes_ += key.size();
    return writes_[{db, key}] = {std::move(entry)};
  }

  void Store() {
    pg::Context context("redis_migrate unapplied");
    pg::SwitchContext in_context(context.get());
    for (int attempt = 1;;) {
      try {
        pg::InSubtransaction([&] { KeepWrites(); });
        break;
      } catch (const pg::PgError &error) {
        store_.Forget();
        if (!pg::IsTransient(error.sqlstate()) || attempt == kMostTries) throw;
        pg::Sleep(attempt++ * kTryPauseMs);
      }
    }
    Spi::Commit();
    writes_.clear();
    bytes_ = 0;
  }

  void KeepWrites() {
    std::vector<LateWrite> late;
    for (const auto &[id, write] : writes_)
      if (auto const pattern = Route::FromNumber(write.entry.route).pattern;
          pattern && Takes(migration_.databases, id.first))
        late.push_back({&write.entry, routing_.patterns()[*pattern].text(), write.is_gone, write.only_expiry,
                        false, write.is_older});
    KeepLostWrites(migration_, routing_, store_, late);
  }

  const Migration &migration_;
  const Routing &routing_;
  LiveRecord record_;
  PassFilter filter_;
  BatchStore store_;
  stream::KnownValues known_{kKnownBytes};
  std::map<KeyId, uint64> stored_;     // keys that are applied up to an offset beyond the position
  std::vector<AppliedShare> further_;  // likewise all keys of a share
  std::map<KeyId, Write> writes_;      // the newest of each key
  uint64 bytes_ = 0;
};

}  // namespace

std::string KeepUnappliedWrites(const Migration &migration, const Routing &routing,
                                const LiveRecord &record) {
  std::optional<pg::Problem> problem;
  try {
    bool const has_owned = !LockOwnedFamilies(migration.name).empty();
    Spi::Commit();
    return has_owned ? Unapplied(migration, routing, record).Keep() : std::string();
  } catch (...) {
    problem = pg::CurrentProblem();
    // Somebody ends the process, or the run.
    if (problem->SqlState().substr(0, 2) == "57") throw;
  }
  pg::RollBackAfter(*problem);
  return problem->message;
}

}  // namespace prm
