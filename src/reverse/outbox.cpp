#include "reverse/outbox.h"

#include "mapping/family_state.h"
#include "pg/arguments.h"
#include "pg/background.h"
#include "pg/identity.h"
#include "pg/spi.h"
#include "pg/table_locks.h"
#include "pg/transaction.h"

namespace prm {

using pg::QuoteIdentifier;
using pg::QuoteLiteral;
using pg::Spi;
using pg::SqlParam;

namespace {

constexpr int64 kMostPassMs = 1000;

// Several mappings may have one target.
std::string RowTrigger(int64 mapping_id) { return "redis_migrate_outbox_" + std::to_string(mapping_id); }
std::string TruncateTrigger(int64 mapping_id) { return RowTrigger(mapping_id) + "_truncate"; }

void DropTriggers(int64 mapping_id, const std::string &target) {
  pg::LocalSettings quiet;
  quiet.Set("client_min_messages", "warning");
  for (const std::string &trigger : {RowTrigger(mapping_id), TruncateTrigger(mapping_id)})
    Spi::Execute("DROP TRIGGER IF EXISTS " + trigger + " ON " + target);
}

// The table that has the triggers, "" if it was dropped; nothing: they were not installed. They follow the
// table, whatever its name, and whatever the mapping names by now.
std::optional<std::string> InstalledOn(int64 mapping_id) {
  pg::AsExtensionOwner as_owner;
  auto rows = Spi::Execute(
      R"sql(SELECT coalesce((SELECT format('%I.%I', n.nspname, c.relname)
                             FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
                             WHERE c.oid = m.target_relation), '')
            FROM redis_migrate.reverse_mapping AS m
            WHERE m.mapping_id = $1)sql",
      {SqlParam::Int8(mapping_id)});
  return rows.size() == 0 ? std::nullopt : rows[0].OptionalText(0);
}

bool IsOwn(const std::string &table) {
  return Spi::Execute(
             R"sql(SELECT coalesce((SELECT pg_catalog.pg_has_role(c.relowner, 'USAGE') FROM pg_catalog.pg_class AS c
                                    WHERE c.oid OPERATOR(pg_catalog.=) pg_catalog.to_regclass($1)), false))sql",
             {SqlParam::Text(table)})[0]
      .Bool(0);
}

bool HasTriggers(int64 mapping_id, const std::string &table) {
  pg::AsExtensionOwner as_owner;
  return Spi::Execute(
             R"sql(SELECT EXISTS (SELECT
                                  FROM pg_trigger
                                  WHERE tgrelid = to_regclass($1) AND tgname = ANY ($2) AND tgparentid = 0))sql",
             {SqlParam::Text(table),
              SqlParam::TextArray({RowTrigger(mapping_id), TruncateTrigger(mapping_id)})})[0]
      .Bool(0);
}

// Tables, and whether they are to be locked against readers, too.
void LockTargets(const std::map<std::string, bool> &targets) {
  std::vector<pg::TableLock> locks;
  for (const auto &[table, is_exclusive] : targets)
    locks.push_back({table, is_exclusive ? "ACCESS EXCLUSIVE" : "SHARE ROW EXCLUSIVE"});
  pg::LockTables(locks, pg::EndOfPatience());
}

// The table that had the triggers of a mapping before, if it is there, has them yet, and is another one.
// before: what InstalledOn says.
std::optional<std::string> FormerTarget(const ReverseMapping &reverse,
                                        const std::optional<std::string> &before) {
  if (!before || before->empty() || *before == reverse.target.name ||
      !HasTriggers(reverse.mapping.id, *before))
    return std::nullopt;
  return before;
}

void WarnOfTriggers(int64 mapping_id, const std::string &table) {
  pg::Report(
      WARNING,
      "triggers of the reverse feed stay on " + table + (IsOwn(table) ? "" : ", which belongs to others"),
      "They do nothing any more. Its owner can drop them: DROP TRIGGER " + RowTrigger(mapping_id) + " ON " +
          table + "; DROP TRIGGER " + TruncateTrigger(mapping_id) + " ON " + table + ".");
}

std::map<std::string, bool> TargetsToRemoveFrom(const std::vector<Mapping> &mappings) {
  std::map<std::string, bool> targets;
  for (const Mapping &mapping : mappings)
    if (std::optional<std::string> const target = InstalledOn(mapping.id);
        target && !target->empty() && IsOwn(*target) && HasTriggers(mapping.id, *target))
      targets[*target] = true;
  return targets;
}

// locked: the tables whose triggers it may drop.
void Install(const ReverseMapping &reverse, const std::map<std::string, bool> &locked) {
  Outbox const outbox(reverse.mapping.id);
  std::optional<std::string> const before = InstalledOn(reverse.mapping.id);
  const char *gap = nullptr;
  if (!before) {
    gap = "nothing was noted since the cutover";
  } else if (*before != reverse.target.name) {
    gap = "the target is another table";
  } else {
    outbox.NotePartitions();
    if (!outbox.FindUnwatched().empty()) gap = "somebody has disabled or dropped triggers";
  }
  std::string arguments = QuoteLiteral(std::to_string(reverse.mapping.id));
  for (const KeyColumn &name : reverse.names) arguments += ", " + QuoteLiteral(name.column.name);
  int64 const id = reverse.mapping.id;
  DropTriggers(id, reverse.target.name);
  if (std::optional<std::string> const former = FormerTarget(reverse, before);
      former && IsOwn(*former) && locked.count(*former) > 0)
    DropTriggers(id, *former);
  else if (former)
    WarnOfTriggers(id, *former);
  Spi::Execute("CREATE TRIGGER " + RowTrigger(id) + " AFTER INSERT OR UPDATE OR DELETE ON " +
               reverse.target.name + " FOR EACH ROW EXECUTE FUNCTION redis_migrate.note_change(" + arguments +
               ")");
  Spi::Execute("CREATE TRIGGER " + TruncateTrigger(id) + " AFTER TRUNCATE ON " + reverse.target.name +
               " FOR EACH STATEMENT EXECUTE FUNCTION redis_migrate.note_change(" + arguments + ")");
  for (const std::string &trigger : {RowTrigger(id), TruncateTrigger(id)})
    Spi::Execute("ALTER TABLE " + reverse.target.name + " ENABLE ALWAYS TRIGGER " + trigger);
  pg::AsExtensionOwner as_owner;
  Spi::Execute(
      R"sql(INSERT INTO redis_migrate.reverse_mapping (mapping_id, migration, target_relation, oldest, expires_column)
            SELECT $1, $2, $3, last_value, $4 FROM redis_migrate.outbox_outbox_id_seq
            ON CONFLICT (mapping_id) DO UPDATE
                SET target_relation = excluded.target_relation, expires_column = excluded.expires_column)sql",
      {SqlParam::Int8(reverse.mapping.id), SqlParam::Text(reverse.mapping.migration),
       SqlParam::OidOf(reverse.target.oid), SqlParam::OptionalText(reverse.expires_column)});
  outbox.TakePartitions();  // those that were made just now have missed nothing
  std::string const state = FamilyState(reverse.mapping.migration, reverse.mapping.pattern);
  if (gap != nullptr && state != "redis" && state != "cutting") outbox.NoteGap(gap);
}

void Remove(const Mapping &mapping) {
  std::optional<std::string> const target = InstalledOn(mapping.id);
  if (!target) return;
  if (target->empty()) {
    // Its triggers went with it.
  } else if (IsOwn(*target)) {
    DropTriggers(mapping.id, *target);
  } else {
    WarnOfTriggers(mapping.id, *target);
  }
  pg::AsExtensionOwner as_owner;
  for (const char *table : {"reverse_mapping", "outbox", "outbox_gap", "reverse_reject"})
    Spi::Execute("DELETE FROM redis_migrate." + std::string(table) + " WHERE mapping_id = $1",
                 {SqlParam::Int8(mapping.id)});
}

}  // namespace

void LockFeed(const std::string &migration) {
  pg::AsExtensionOwner as_owner;
  Spi::ExecuteKept("SELECT FROM redis_migrate.reverse_feed WHERE migration = $1 FOR UPDATE",
                   {SqlParam::Text(migration)});
}

void InstallOutboxes(const std::vector<ReverseMapping> &reverses) {
  std::map<std::string, bool> targets;
  for (const ReverseMapping &reverse : reverses) {
    targets[reverse.target.name] |= HasTriggers(reverse.mapping.id, reverse.target.name);
    if (std::optional<std::string> const former = FormerTarget(reverse, InstalledOn(reverse.mapping.id));
        former && IsOwn(*former))
      targets[*former] = true;
  }
  LockTargets(targets);
  LockFeed(reverses.front().mapping.migration);
  for (const ReverseMapping &reverse : reverses) Install(reverse, targets);
}

void WaitUntilRemovable(const std::vector<Mapping> &mappings) {
  pg::InRolledBackSubtransaction([&] { LockTargets(TargetsToRemoveFrom(mappings)); });
}

void RemoveOutboxes(const std::vector<Mapping> &mappings) {
  LockTargets(TargetsToRemoveFrom(mappings));
  if (!mappings.empty()) LockFeed(mappings.front().migration);
  for (const Mapping &mapping : mappings) Remove(mapping);
}

// Deleted changes stay in the index until a vacuum, of which a long transaction may keep very many. So it is
// begun behind them: numbers up to `last` were given to transactions with ids below `next`, whose changes are
// all visible, or never will be, once no such transaction runs any more.
std::vector<Outbox::Change> Outbox::Read(int limit) {
  if (passed_ > 0 && (is_all_ || pg::MonotonicMs() - passed_ms_ > kMostPassMs)) {
    passed_ = 0;
    first_passed_ = PG_INT64_MAX;
  }
  pg::AsExtensionOwner as_owner;
  auto rows = Spi::ExecuteKept(
      R"sql(SELECT outbox_id, name
            FROM redis_migrate.outbox
            WHERE mapping_id = $1 AND outbox_id >= $3
            ORDER BY outbox_id
            LIMIT $2)sql",
      {SqlParam::Int8(mapping_id_), SqlParam::Int4(limit), SqlParam::Int8(std::max(from_, passed_ + 1))},
      true);
  std::vector<Change> changes;
  changes.reserve(rows.size());
  for (uint64 i = 0; i < rows.size(); ++i) changes.push_back({rows[i].Int8(0), rows[i].TextArray(1)});
  bool const is_settled =
      TransactionIdIsValid(next_) && !TransactionIdPrecedes(GetActiveSnapshot()->xmin, next_);
  if (is_settled) settled_ = std::max(settled_, last_);
  if (is_settled || !TransactionIdIsValid(next_)) {
    // Its last value is one that nobody has got, before the first.
    last_ =
        Spi::ExecuteKept("SELECT last_value - (NOT is_called)::int FROM redis_migrate.outbox_outbox_id_seq",
                         {}, true)[0]
            .Int8(0);
    next_ = pg::Call([] { return ReadNextTransactionId(); });
  }
  is_all_ = changes.size() < static_cast<size_t>(limit);
  done_ = is_all_ ? settled_ : std::min(settled_, changes.back().id);
  if (changes.empty())
    from_ = std::max(from_, std::min(done_ + 1, first_passed_));
  else
    read_ = changes.back().id;
  return changes;
}

void Outbox::Forget(const std::vector<int64> &ids, int64 first_left) {
  pg::AsExtensionOwner as_owner;
  if (!ids.empty())
    Spi::ExecuteKept("DELETE FROM redis_migrate.outbox WHERE mapping_id = $2 AND outbox_id = ANY ($1)",
                     {SqlParam::Int8Array(ids), SqlParam::Int8(mapping_id_)});
  from_ = std::max(from_, std::min({done_ + 1, first_left, first_passed_}));
}

void Outbox::PassOver(int64 first_left) {
  if (passed_ == 0) passed_ms_ = pg::MonotonicMs();
  passed_ = read_;
  // Behind what is done, others may become visible yet, which the next Read does not look for.
  first_passed_ = std::min({first_passed_, first_left, done_ + 1});
}

void Outbox::Note(const std::set<RowName> &names) const {
  pg::AsExtensionOwner as_owner;
  for (const RowName &name : names)
    Spi::ExecuteKept("INSERT INTO redis_migrate.outbox (mapping_id, name) VALUES ($1, $2)",
                     {SqlParam::Int8(mapping_id_), SqlParam::TextArray(name)});
}

// Whether what family_state.h says in SQL of a mapping m holds for this one.
bool Outbox::Holds(const char *condition) const {
  pg::AsExtensionOwner as_owner;
  return Spi::ExecuteKept(
             "SELECT EXISTS (SELECT FROM redis_migrate.mapping AS m WHERE m.mapping_id = $1 AND " +
                 std::string(condition) + ")",
             {SqlParam::Int8(mapping_id_)})[0]
      .Bool(0);
}

bool Outbox::IsAtRest() const { return Holds(kIsRedisAgain); }

bool Outbox::FollowsRedis() const { return Holds(kFollowsRedis); }

bool Outbox::ForgetAtRest() const {
  pg::AsExtensionOwner as_owner;
  bool const has_any =
      Spi::ExecuteKept(
          R"sql(SELECT EXISTS (SELECT FROM redis_migrate.reverse_mapping WHERE mapping_id = $1 AND in_full_pass)
                       OR EXISTS (SELECT FROM redis_migrate.outbox WHERE mapping_id = $1)
                       OR EXISTS (SELECT FROM redis_migrate.outbox_gap WHERE mapping_id = $1)
                       OR EXISTS (SELECT FROM redis_migrate.reverse_reject WHERE mapping_id = $1))sql",
          {SqlParam::Int8(mapping_id_)})[0]
          .Bool(0);
  // As LockFeed, but without a wait, as the caller keeps the states of the families. A feed that has nothing
  // to forget writes nothing.
  if (has_any && Spi::ExecuteKept(
                     R"sql(SELECT
                           FROM redis_migrate.reverse_feed AS f JOIN redis_migrate.reverse_mapping AS m USING (migration)
                           WHERE m.mapping_id = $1
                           FOR UPDATE OF f SKIP LOCKED)sql",
                     {SqlParam::Int8(mapping_id_)})
                         .processed() == 0)
    return false;
  return Spi::ExecuteKept(
             R"sql(WITH resting AS MATERIALIZED (
                       SELECT m.mapping_id FROM redis_migrate.mapping AS m WHERE m.mapping_id = $1 AND )sql" +
                 std::string(kIsRedisAgain) + R"sql(),
                   changes AS (
                       DELETE FROM redis_migrate.outbox WHERE mapping_id = (SELECT mapping_id FROM resting)),
                   gaps AS (
                       DELETE FROM redis_migrate.outbox_gap WHERE mapping_id = (SELECT mapping_id FROM resting)),
                   rejects AS (
                       DELETE FROM redis_migrate.reverse_reject WHERE mapping_id = (SELECT mapping_id FROM resting)),
                   passes AS (
                       UPDATE redis_migrate.reverse_mapping SET in_full_pass = false, unscanned = NULL
                       WHERE mapping_id = (SELECT mapping_id FROM resting) AND in_full_pass)
                   SELECT EXISTS (SELECT FROM resting))sql",
             {SqlParam::Int8(mapping_id_)})[0]
      .Bool(0);
}

bool Outbox::NeedsFull() const {
  pg::AsExtensionOwner as_owner;
  return Spi::ExecuteKept(
             R"sql(SELECT EXISTS (SELECT FROM redis_migrate.outbox_gap WHERE mapping_id = $1)
                          OR EXISTS (SELECT FROM redis_migrate.reverse_mapping
                                     WHERE mapping_id = $1 AND in_full_pass AND unscanned IS NULL))sql",
             {SqlParam::Int8(mapping_id_)})[0]
      .Bool(0);
}

pg::LockHolders Outbox::BeginFull() const {
  {
    pg::AsExtensionOwner as_owner;
    for (const char *sql : {"UPDATE redis_migrate.reverse_mapping SET in_full_pass = true, unscanned = NULL "
                            "WHERE mapping_id = $1",
                            "DELETE FROM redis_migrate.outbox_gap WHERE mapping_id = $1"})
      Spi::Execute(sql, {SqlParam::Int8(mapping_id_)});
  }
  Spi::Commit();
  // Who has the lock has seen the gap. To wait for the lock itself would hold up those who come after.
  pg::LockHolders const holders(pg::LockTag(pg::kOutboxLocks, static_cast<uint64>(mapping_id_)));
  Spi::Commit();
  return holders;
}

void Outbox::NoteUnscanned(const redis::Slots &slots) const {
  std::optional<std::string> const left =
      slots.any() ? std::optional(redis::SlotsToText(slots)) : std::nullopt;
  pg::AsExtensionOwner as_owner;
  Spi::Execute(
      "UPDATE redis_migrate.reverse_mapping SET in_full_pass = $2 IS NOT NULL, unscanned = $2 WHERE "
      "mapping_id = $1",
      {SqlParam::Int8(mapping_id_), SqlParam::OptionalText(left)});
}

redis::Slots Outbox::ReadUnscanned() const {
  pg::AsExtensionOwner as_owner;
  auto const rows = Spi::Execute("SELECT unscanned FROM redis_migrate.reverse_mapping WHERE mapping_id = $1",
                                 {SqlParam::Int8(mapping_id_)});
  if (rows.size() == 0 || rows[0].IsNull(0)) return {};
  return pg::ValueOrThrow(redis::SlotsFromText(rows[0].Text(0)));
}

void Outbox::NoteNameless(int64 changes) const {
  pg::AsExtensionOwner as_owner;
  // Clocks may be set back; changes of families are numbered in the order in which they are made.
  Spi::ExecuteKept(
      R"sql(UPDATE redis_migrate.reverse_mapping
            SET unfit = unfit + $2,
                nameless_after = (SELECT CASE WHEN is_called THEN last_value ELSE 0 END
                                  FROM redis_migrate.family_change_change_id_seq)
            WHERE mapping_id = $1)sql",
      {SqlParam::Int8(mapping_id_), SqlParam::Int8(changes)});
}

void Outbox::NoteGap(const char *reason) const {
  pg::AsExtensionOwner as_owner;
  Spi::ExecuteKept("INSERT INTO redis_migrate.outbox_gap (mapping_id, reason) VALUES ($1, $2)",
                   {SqlParam::Int8(mapping_id_), SqlParam::Text(reason)});
}

// Whether they were others when they were looked at last. OFFSET 0: a database may have very many triggers,
// so those of each table are looked up.
bool Outbox::TakePartitions() const {
  pg::AsExtensionOwner as_owner;
  auto const rows = Spi::ExecuteKept(
      R"sql(WITH now AS (SELECT m.partitions AS before,
                                concat_ws(';',
                                    (SELECT string_agg(p.relid::oid || ':' || coalesce(pg_relation_filenode(p.relid), 0), ',' ORDER BY p.relid::oid)
                                     FROM pg_partition_tree(m.target_relation) AS p WHERE p.isleaf),
                                    (SELECT string_agg(t.oid || ':' || t.tgenabled::text || ':' || t.xmin::text, ',' ORDER BY t.oid)
                                     FROM (SELECT m.target_relation::oid AS relation
                                           UNION SELECT p.relid::oid FROM pg_partition_tree(m.target_relation) AS p) AS r
                                     CROSS JOIN LATERAL (SELECT t.oid, t.tgenabled, t.xmin
                                                         FROM pg_trigger AS t
                                                         WHERE t.tgrelid = r.relation AND t.tgname = ANY ($2)
                                                         OFFSET 0) AS t)) AS partitions
                         FROM redis_migrate.reverse_mapping AS m WHERE m.mapping_id = $1)
            UPDATE redis_migrate.reverse_mapping AS m
            SET partitions = now.partitions
            FROM now
            WHERE m.mapping_id = $1 AND now.partitions IS DISTINCT FROM m.partitions
            RETURNING now.before IS NOT NULL)sql",
      {SqlParam::Int8(mapping_id_),
       SqlParam::TextArray({RowTrigger(mapping_id_), TruncateTrigger(mapping_id_)})});
  return rows.size() > 0 && rows[0].Bool(0);
}

void Outbox::NotePartitions() const {
  if (TakePartitions()) NoteGap("partitions of the target, or its triggers, have changed");
}

std::string Outbox::FindUnwatched() const {
  pg::AsExtensionOwner as_owner;
  auto const rows = Spi::ExecuteKept(
      R"sql(WITH RECURSIVE target (relation) AS (
                SELECT coalesce(to_regclass(p.target)::oid, m.target_relation::oid)
                FROM redis_migrate.reverse_mapping AS m
                JOIN redis_migrate.mapping AS p USING (mapping_id)
                WHERE m.mapping_id = $1),
            tree (relation) AS (
                SELECT relation FROM target
                UNION
                SELECT i.inhrelid FROM pg_inherits AS i JOIN tree AS t ON i.inhparent = t.relation),
            watched (relation, trigger, type) AS (
                SELECT relation, $2::text, $4::int FROM tree
                UNION ALL
                SELECT relation, $3, $5 FROM target)
            SELECT min(format('%I.%I', n.nspname, c.relname))
            FROM watched AS w
            JOIN pg_class AS c ON c.oid = w.relation
            JOIN pg_namespace AS n ON n.oid = c.relnamespace
            WHERE NOT EXISTS (SELECT FROM pg_trigger AS t
                              WHERE t.tgrelid = w.relation AND t.tgname = w.trigger AND t.tgenabled = 'A'
                                  AND t.tgfoid = 'redis_migrate.note_change()'::regprocedure
                                  AND t.tgtype = w.type AND t.tgqual IS NULL AND cardinality(t.tgattr) = 0))sql",
      {SqlParam::Int8(mapping_id_), SqlParam::Text(RowTrigger(mapping_id_)),
       SqlParam::Text(TruncateTrigger(mapping_id_)),
       SqlParam::Int4(TRIGGER_TYPE_ROW | TRIGGER_TYPE_INSERT | TRIGGER_TYPE_UPDATE | TRIGGER_TYPE_DELETE),
       SqlParam::Int4(TRIGGER_TYPE_TRUNCATE)});
  return rows.size() == 0 ? "" : rows[0].OptionalText(0).value_or("");
}

}  // namespace prm
