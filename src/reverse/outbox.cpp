#include "reverse/outbox.h"

#include "ledger/ledger.h"
#include "pg/arguments.h"
#include "pg/entry.h"
#include "pg/identity.h"
#include "pg/own_write.h"
#include "pg/session_lock.h"
#include "pg/settings.h"
#include "pg/spi.h"
#include "pg/transaction.h"

namespace prm {

using pg::QuoteIdentifier;
using pg::QuoteLiteral;
using pg::Spi;
using pg::SqlParam;

namespace {

constexpr char kRowTrigger[] = "redis_migrate_outbox";
constexpr char kTruncateTrigger[] = "redis_migrate_outbox_truncate";

void DropTriggers(const std::string &target) {
  Spi::Execute("DROP TRIGGER IF EXISTS " + std::string(kRowTrigger) + " ON " + target);
  Spi::Execute("DROP TRIGGER IF EXISTS " + std::string(kTruncateTrigger) + " ON " + target);
}

bool IsInstalled(int64 mapping_id) {
  pg::AsExtensionOwner as_owner;
  return Spi::Execute("SELECT FROM redis_migrate.reverse_mapping WHERE mapping_id = $1",
                      {SqlParam::Int8(mapping_id)})
             .size() > 0;
}

}  // namespace

void InstallOutbox(const ReverseMapping &reverse) {
  std::string arguments = QuoteLiteral(std::to_string(reverse.mapping.id));
  for (const KeyColumn &name : reverse.names) arguments += ", " + QuoteLiteral(name.column.name);
  {
    pg::LocalSettings quiet;
    quiet.Set("client_min_messages", "warning");
    DropTriggers(reverse.target.name);
  }
  Spi::Execute("CREATE TRIGGER " + std::string(kRowTrigger) + " AFTER INSERT OR UPDATE OR DELETE ON " +
               reverse.target.name + " FOR EACH ROW EXECUTE FUNCTION redis_migrate.note_change(" + arguments +
               ")");
  Spi::Execute("CREATE TRIGGER " + std::string(kTruncateTrigger) + " AFTER TRUNCATE ON " +
               reverse.target.name + " FOR EACH STATEMENT EXECUTE FUNCTION redis_migrate.note_change(" +
               arguments + ")");
  for (const char *trigger : {kRowTrigger, kTruncateTrigger})
    Spi::Execute("ALTER TABLE " + reverse.target.name + " ENABLE ALWAYS TRIGGER " + trigger);
  pg::AsExtensionOwner as_owner;
  Spi::Execute(
      R"sql(INSERT INTO redis_migrate.reverse_mapping (mapping_id, migration, target_relation)
            VALUES ($1, $2, $3)
            ON CONFLICT (mapping_id) DO UPDATE SET target_relation = excluded.target_relation)sql",
      {SqlParam::Int8(reverse.mapping.id), SqlParam::Text(reverse.mapping.migration),
       SqlParam::OidOf(reverse.target.oid)});
}

void RemoveOutbox(const Mapping &mapping) {
  if (!IsInstalled(mapping.id)) return;
  {
    pg::LocalSettings quiet;
    quiet.Set("client_min_messages", "warning");
    DropTriggers(mapping.target);
  }
  pg::AsExtensionOwner as_owner;
  for (const char *table : {"reverse_mapping", "outbox", "outbox_gap"})
    Spi::Execute("DELETE FROM redis_migrate." + std::string(table) + " WHERE mapping_id = $1",
                 {SqlParam::Int8(mapping.id)});
}

std::vector<Outbox::Change> Outbox::Read(int limit) const {
  pg::AsExtensionOwner as_owner;
  auto rows = Spi::ExecuteKept(
      R"sql(SELECT outbox_id, name
            FROM redis_migrate.outbox
            WHERE mapping_id = $1
            ORDER BY outbox_id
            LIMIT $2)sql",
      {SqlParam::Int8(mapping_id_), SqlParam::Int4(limit)}, true);
  std::vector<Change> changes;
  for (uint64 i = 0; i < rows.size(); ++i) changes.push_back({rows[i].Int8(0), rows[i].TextArray(1)});
  return changes;
}

void Outbox::Forget(const std::vector<int64> &ids) const {
  pg::AsExtensionOwner as_owner;
  Spi::ExecuteKept("DELETE FROM redis_migrate.outbox WHERE mapping_id = $2 AND outbox_id = ANY ($1)",
                   {SqlParam::Int8Array(ids), SqlParam::Int8(mapping_id_)});
}

bool Outbox::NeedsFull() const {
  pg::AsExtensionOwner as_owner;
  return Spi::ExecuteKept(
             R"sql(SELECT EXISTS (SELECT FROM redis_migrate.outbox_gap WHERE mapping_id = $1)
                          OR EXISTS (SELECT FROM redis_migrate.reverse_mapping WHERE mapping_id = $1 AND in_full_pass))sql",
             {SqlParam::Int8(mapping_id_)})[0]
      .Bool(0);
}

void Outbox::BeginFull() const {
  pg::LockInTransaction(pg::LockTag(pg::kOutboxLocks, static_cast<uint64>(mapping_id_)), ExclusiveLock);
  pg::LatestSnapshotScope latest;
  pg::AsExtensionOwner as_owner;
  for (const char *sql :
       {"UPDATE redis_migrate.reverse_mapping SET in_full_pass = true WHERE mapping_id = $1",
        "DELETE FROM redis_migrate.outbox_gap WHERE mapping_id = $1",
        "DELETE FROM redis_migrate.outbox WHERE mapping_id = $1"})
    Spi::Execute(sql, {SqlParam::Int8(mapping_id_)});
}

void Outbox::EndFull() const {
  pg::AsExtensionOwner as_owner;
  Spi::Execute("UPDATE redis_migrate.reverse_mapping SET in_full_pass = false WHERE mapping_id = $1",
               {SqlParam::Int8(mapping_id_)});
}

namespace {

// What a transaction knows of the outbox of a mapping, read once.
struct Known {
  LocalTransactionId transaction = InvalidLocalTransactionId;
  Oid target = InvalidOid;   // invalid: not installed
  std::set<Oid> partitions;  // of the target
  bool has_gap = false;
  int64 oldest = 0;  // changes before it have been sent
};

Known ReadKnown(int64 mapping_id) {
  Known known;
  pg::LatestSnapshotScope latest;
  pg::AsExtensionOwner as_owner;
  auto rows = Spi::ExecuteKept(
      R"sql(SELECT m.target_relation,
                   EXISTS (SELECT FROM redis_migrate.outbox_gap AS g WHERE g.mapping_id = m.mapping_id),
                   m.oldest
            FROM redis_migrate.reverse_mapping AS m
            WHERE m.mapping_id = $1)sql",
      {SqlParam::Int8(mapping_id)}, true);
  if (rows.size() == 0) return known;
  known.target = DatumGetObjectId(rows[0].Value(0));
  known.has_gap = rows[0].Bool(1);
  known.oldest = rows[0].Int8(2);
  return known;
}

// A partitioned table's triggers are its partitions', too.
bool IsPartOf(Oid target, Oid relation) {
  return Spi::Execute(
             "SELECT $1 IN (SELECT relid::pg_catalog.oid FROM pg_catalog.pg_partition_ancestors($2))",
             {SqlParam::OidOf(target), SqlParam::OidOf(relation)}, true)[0]
      .Bool(0);
}

void NoteGap(int64 mapping_id, const char *reason) {
  pg::AsExtensionOwner as_owner;
  Spi::ExecuteKept("INSERT INTO redis_migrate.outbox_gap (mapping_id, reason) VALUES ($1, $2)",
                   {SqlParam::Int8(mapping_id), SqlParam::Text(reason)});
}

void Note(int64 mapping_id, const RowName &name, Known &known) {
  if (known.has_gap) {
    // The pass over all rows waits for this transaction, and then sees what it has done.
    pg::LockInTransaction(pg::LockTag(pg::kOutboxLocks, static_cast<uint64>(mapping_id)), ShareLock);
    if (ReadKnown(mapping_id).has_gap) return;
  }
  int64 id = 0;
  {
    pg::AsExtensionOwner as_owner;
    id = Spi::ExecuteKept(
             "INSERT INTO redis_migrate.outbox (mapping_id, name) VALUES ($1, $2) RETURNING outbox_id",
             {SqlParam::Int8(mapping_id), SqlParam::TextArray(name)})[0]
             .Int8(0);
  }
  if (id - known.oldest <= pg::settings::max_outbox_rows) return;
  NoteGap(mapping_id, "the outbox is full");
  known.has_gap = true;
}

RowName NameIn(HeapTuple tuple, TupleDesc desc, const std::vector<std::string> &columns) {
  RowName name;
  for (const std::string &column : columns) {
    const char *text = pg::Call([&] {
      int const number = SPI_fnumber(desc, column.c_str());
      if (number <= 0)
        ereport(
            ERROR,
            (errcode(ERRCODE_UNDEFINED_COLUMN),
             errmsg("column \"%s\" of the outbox of Redis' reverse feed does not exist", column.c_str()),
             errhint(
                 "Stop the reverse feed and start it again: redis_migrate.stop_reverse, start_reverse.")));
      return const_cast<const char *>(SPI_getvalue(tuple, desc, number));
    });
    name.emplace_back(text == nullptr ? "" : text);
  }
  return name;
}

}  // namespace
}  // namespace prm

// redis_migrate.note_change(mapping_id, column, …), a trigger: see the SQL comment. Errors: 39P01 when it is
// called otherwise, 55000 on a table that is not the target of the mapping, 42703 for a column that is gone.
PRM_FUNCTION(note_change) {
  using namespace prm;
  if (!CALLED_AS_TRIGGER(fcinfo))
    throw pg::Failure(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED, "redis_migrate.note_change is a trigger");
  if (pg::OwnWrite::IsUnderWay()) return PointerGetDatum(nullptr);
  auto *data = reinterpret_cast<TriggerData *>(fcinfo->context);
  const Trigger &trigger = *data->tg_trigger;
  int64 const mapping_id = trigger.tgnargs > 0 ? strtoll(trigger.tgargs[0], nullptr, 10) : 0;
  std::vector<std::string> const columns(trigger.tgargs + std::min<int>(1, trigger.tgnargs),
                                         trigger.tgargs + trigger.tgnargs);
  pg::Spi spi;
  static std::map<int64, Known> known_of;
  LocalTransactionId const transaction = pg::CurrentLocalTransaction();
  Known &known = known_of[mapping_id];
  if (known.transaction != transaction) {
    known = ReadKnown(mapping_id);
    known.transaction = transaction;
  }
  Oid const relation = RelationGetRelid(data->tg_relation);
  if (relation != known.target && known.partitions.count(relation) == 0) {
    if (!IsPartOf(known.target, relation))
      throw pg::Failure(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
                        "trigger \"" + std::string(trigger.tgname) + "\" does not belong to a reverse feed",
                        "", "DROP TRIGGER " + QuoteIdentifier(trigger.tgname) + " ON this table.");
    known.partitions.insert(relation);
  }
  if (TRIGGER_FIRED_BY_TRUNCATE(data->tg_event)) {
    NoteGap(mapping_id, "the target was truncated");
    return PointerGetDatum(nullptr);
  }
  CanonicalText canonical;
  TupleDesc const desc = RelationGetDescr(data->tg_relation);
  RowName const name = NameIn(data->tg_trigtuple, desc, columns);
  Note(mapping_id, name, known);
  if (TRIGGER_FIRED_BY_UPDATE(data->tg_event)) {
    RowName const after = NameIn(data->tg_newtuple, desc, columns);
    if (after != name) Note(mapping_id, after, known);
  }
  return PointerGetDatum(nullptr);
}
