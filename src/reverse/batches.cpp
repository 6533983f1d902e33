// Which batches a server has: those of a feed that has ended, and those that the server has lost.
#include "pg/arguments.h"
#include "pg/identity.h"
#include "pg/transaction.h"
#include "reverse/reverse_feed.h"

namespace prm {

using pg::Spi;
using pg::SqlParam;

namespace {

constexpr int kMostEndings = 5;

}  // namespace

// A batch is acknowledged once EXEC has answered. Until then it may come at any time, but for one thing: EXEC
// does nothing if somebody has written the position meanwhile. A later batch does so for its own slots alone.
void EndBatches(const Migration &migration) {
  for (int endings = 1;; ++endings) {
    int64 batch = 0;
    redis::Slots slots;
    {
      // Waits for who is about to send one.
      pg::AsExtensionOwner as_owner;
      auto rows =
          Spi::Execute("SELECT batch, slots FROM redis_migrate.reverse_feed WHERE migration = $1 FOR UPDATE",
                       {SqlParam::Text(migration.name)});
      if (rows.size() > 0) {
        batch = rows[0].Int8(0);
        slots = pg::ValueOrThrow(redis::SlotsFromText(rows[0].Text(1)));
      }
    }
    std::string const instance = FeedInstance();
    Spi::Commit();
    if (slots.none()) return;
    try {
      ReverseSender::Open(migration.name, migration.server, instance)->End(batch, slots);
      return;
    } catch (const pg::Failure &failure) {
      if (failure.sqlstate() != ERRCODE_T_R_SERIALIZATION_FAILURE || endings == kMostEndings) throw;
    }
  }
}

// A batch that a killed process has left on its way finds that somebody has written the position, and does
// nothing. If this is killed, or a removal is late, the next feed finds positions that nobody asks for, or a
// lack of them.
void ForgetBatches(const Migration &migration) {
  redis::Slots slots;
  {
    pg::AsExtensionOwner as_owner;
    auto rows = Spi::Execute(
        R"sql(WITH feed AS (
                  UPDATE redis_migrate.reverse_feed SET acknowledged = 0
                  WHERE migration = $1 AND NOT wanted AND acknowledged > 0
                  RETURNING migration),
              gone AS (
                  DELETE FROM redis_migrate.reverse_slot AS s USING feed WHERE s.migration = feed.migration
                  RETURNING s.slot)
              SELECT slot FROM gone UNION SELECT 0 FROM feed)sql",
        {SqlParam::Text(migration.name)});
    for (uint64 i = 0; i < rows.size(); ++i) slots.set(static_cast<size_t>(rows[i].Int4(0)));
  }
  std::string const instance = FeedInstance();
  Spi::Commit();
  if (slots.any()) ReverseSender::Open(migration.name, migration.server, instance)->RemovePositions(slots);
}

namespace {

// By slot. A server that is no cluster has slot 0 alone; slots of a cluster are known once it has had
// batches, begun: or those that may have come to it.
std::map<size_t, int64> ReadAcknowledged(const std::string &migration, bool is_cluster, redis::Slots &begun) {
  std::map<size_t, int64> acknowledged;
  pg::AsExtensionOwner as_owner;
  auto rows = Spi::Execute(
      R"sql(SELECT f.acknowledged, s.slot, s.acknowledged, f.slots
            FROM redis_migrate.reverse_feed AS f LEFT JOIN redis_migrate.reverse_slot AS s USING (migration)
            WHERE f.migration = $1)sql",
      {SqlParam::Text(migration)});
  for (uint64 i = 0; i < rows.size(); ++i) {
    if (is_cluster && !rows[i].IsNull(1))
      acknowledged[static_cast<size_t>(rows[i].Int4(1))] = rows[i].Int8(2);
    else
      acknowledged[0] = rows[i].Int8(0);
    if (i == 0) begun = pg::ValueOrThrow(redis::SlotsFromText(rows[i].Text(3)));
  }
  return acknowledged;
}

}  // namespace

// A server that has an older batch than it has acknowledged, or a newer one than there is, has lost what it
// had, or this server has: only all rows tell. Notes a gap then of all mappings but those whose families
// are Redis' and followed, and writes the positions anew, or some would be found again and again; but nothing
// while all families are Redis' again. Another process may send batches meanwhile: what is acknowledged is
// read before the positions, and what is begun after them. Of slots that have had no batch it is enough to
// know what they have when one is sent. Commits. Returns whether it has found such a slot.
bool NoteLostBatches(const std::string &migration, ReverseSender &sender) {
  redis::Slots needed;
  std::map<size_t, int64> const acknowledged = ReadAcknowledged(migration, sender.is_cluster(), needed);
  for (const auto &[slot, batch] : acknowledged) needed.set(slot);
  Spi::Commit();
  std::map<size_t, ReverseSender::Position> const positions = sender.FetchPositions(needed);
  int64 batch = 0;
  std::vector<int64> mappings;
  bool is_at_rest = true;
  {
    pg::AsExtensionOwner as_owner;
    auto rows = Spi::Execute(
        R"sql(SELECT f.batch, m.mapping_id
              FROM redis_migrate.reverse_feed AS f JOIN redis_migrate.reverse_mapping AS m USING (migration)
              WHERE f.migration = $1)sql",
        {SqlParam::Text(migration)});
    for (uint64 i = 0; i < rows.size(); ++i) {
      batch = rows[i].Int8(0);
      mappings.push_back(rows[i].Int8(1));
    }
  }
  const char *gap = nullptr;
  redis::Slots doubtful;
  for (const auto &[slot, at_least] : acknowledged) {
    auto const position = positions.find(slot);
    if (at_least == 0 || (position != positions.end() && position->second.batch >= at_least)) continue;
    gap = "Redis has lost batches";
    doubtful.set(slot);
  }
  for (const auto &[slot, position] : positions) {
    if (!position.is_of_others && position.batch <= batch) continue;
    gap = "batches in Redis are not of this server";
    doubtful.set(slot);
  }
  if (gap != nullptr) {
    // Once the positions are written, nothing else tells.
    pg::SetForTransaction("synchronous_commit", "local");
    for (int64 const id : mappings) {
      Outbox const outbox(id);
      if (!outbox.FollowsRedis()) outbox.NoteGap(gap);
      if (!outbox.IsAtRest()) is_at_rest = false;
    }
  }
  Spi::Commit();
  if (!is_at_rest) sender.End(batch, doubtful);
  return gap != nullptr;
}

bool NoteLostBatches(const Migration &migration) {
  std::string const instance = FeedInstance();
  std::unique_ptr<ReverseSender> const sender =
      ReverseSender::Open(migration.name, migration.server, instance);
  return NoteLostBatches(migration.name, *sender);
}

}  // namespace prm
