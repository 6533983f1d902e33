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

}  // namespace

void InstallOutbox(const ReverseMapping &reverse) {
  std::string arguments = QuoteLiteral(std::to_string(reverse.mapping.id));
  for (const KeyColumn &name : reverse.names) arguments += ", " + QuoteLiteral(name.column.name);
  int64 const id = reverse.mapping.id;
  DropTriggers(id, reverse.target.name);
  Spi::Execute("CREATE TRIGGER " + RowTrigger(id) + " AFTER INSERT OR UPDATE OR DELETE ON " +
               reverse.target.name + " FOR EACH ROW EXECUTE FUNCTION redis_migrate.note_change(" + arguments +
               ")");
  Spi::Execute("CREATE TRIGGER " + TruncateTrigger(id) + " AFTER TRUNCATE ON " + reverse.target.name +
               " FOR EACH STATEMENT EXECUTE FUNCTION redis_migrate.note_change(" + arguments + ")");
  for (const std::string &trigger : {RowTrigger(id), TruncateTrigger(id)})
    Spi::Execute("ALTER TABLE " + reverse.target.name + " ENABLE ALWAYS TRIGGER " + trigger);
  pg::AsExtensionOwner as_owner;
  Spi::Execute(
      R"sql(INSERT INTO redis_migrate.reverse_mapping (mapping_id, migration, target_relation, oldest)
            SELECT $1, $2, $3, last_value FROM redis_migrate.outbox_outbox_id_seq
            ON CONFLICT (mapping_id) DO UPDATE SET target_relation = excluded.target_relation)sql",
      {SqlParam::Int8(reverse.mapping.id), SqlParam::Text(reverse.mapping.migration),
       SqlParam::OidOf(reverse.target.oid)});
  Outbox(reverse.mapping.id).NotePartitions();
}

void RemoveOutbox(const Mapping &mapping) {
  std::optional<std::string> const target = InstalledOn(mapping.id);
  if (!target) return;
  if (IsOwn(*target)) {
    DropTriggers(mapping.id, *target);
  } else if (!target->empty()) {
    pg::Report(WARNING, "triggers of the reverse feed stay on " + *target + ", which belongs to others",
               "They do nothing any more. Its owner can drop them: DROP TRIGGER " + RowTrigger(mapping.id) +
                   " ON " + *target + "; DROP TRIGGER " + TruncateTrigger(mapping.id) + " ON " + *target +
                   ".");
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
  {
    pg::AsExtensionOwner as_owner;
    for (const char *sql :
         {"UPDATE redis_migrate.reverse_mapping SET in_full_pass = true WHERE mapping_id = $1",
          "DELETE FROM redis_migrate.outbox_gap WHERE mapping_id = $1"})
      Spi::Execute(sql, {SqlParam::Int8(mapping_id_)});
  }
  Spi::Commit();
  // Who has the lock has seen the gap. To wait for the lock itself would hold up those who come after.
  pg::WaitForHolders(pg::LockTag(pg::kOutboxLocks, static_cast<uint64>(mapping_id_)));
}

void Outbox::EndFull() const {
  pg::AsExtensionOwner as_owner;
  Spi::Execute("UPDATE redis_migrate.reverse_mapping SET in_full_pass = false WHERE mapping_id = $1",
               {SqlParam::Int8(mapping_id_)});
}

void Outbox::NoteGap(const char *reason) const {
  pg::AsExtensionOwner as_owner;
  Spi::ExecuteKept("INSERT INTO redis_migrate.outbox_gap (mapping_id, reason) VALUES ($1, $2)",
                   {SqlParam::Int8(mapping_id_), SqlParam::Text(reason)});
}

void Outbox::NotePartitions() const {
  bool is_other = false;
  {
    pg::AsExtensionOwner as_owner;
    auto rows = Spi::ExecuteKept(
        R"sql(WITH now AS (SELECT m.partitions AS before,
                                  (SELECT string_agg(p.relid::oid || ':' || coalesce(pg_relation_filenode(p.relid), 0), ',' ORDER BY p.relid::oid)
                                   FROM pg_partition_tree(m.target_relation) AS p WHERE p.isleaf) AS partitions
                           FROM redis_migrate.reverse_mapping AS m WHERE m.mapping_id = $1)
              UPDATE redis_migrate.reverse_mapping AS m
              SET partitions = now.partitions
              FROM now
              WHERE m.mapping_id = $1 AND now.partitions IS DISTINCT FROM now.before
              RETURNING now.before IS NOT NULL)sql",
        {SqlParam::Int8(mapping_id_)});
    is_other = rows.size() > 0 && rows[0].Bool(0);
  }
  if (is_other) NoteGap("partitions of the target have changed");
}

namespace {

// What a transaction knows of the outbox of a mapping, read once.
struct Known {
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
  pg::AsExtensionOwner as_owner;  // nobody else's operators
  return Spi::Execute(
             "SELECT $1 IN (SELECT relid::pg_catalog.oid FROM pg_catalog.pg_partition_ancestors($2))",
             {SqlParam::OidOf(target), SqlParam::OidOf(relation)}, true)[0]
      .Bool(0);
}

// Whether a pass over all rows is still to begin. It waits for this transaction, and then sees what that has
// done.
bool IsInGap(int64 mapping_id) {
  pg::LockInTransaction(pg::LockTag(pg::kOutboxLocks, static_cast<uint64>(mapping_id)), ShareLock);
  return ReadKnown(mapping_id).has_gap;
}

void Note(int64 mapping_id, const RowName &name, Known &known) {
  if (known.has_gap && IsInGap(mapping_id)) return;
  int64 id = 0;
  {
    pg::AsExtensionOwner as_owner;
    id = Spi::ExecuteKept(
             "INSERT INTO redis_migrate.outbox (mapping_id, name) VALUES ($1, $2) RETURNING outbox_id",
             {SqlParam::Int8(mapping_id), SqlParam::TextArray(name)})[0]
             .Int8(0);
  }
  if (id - known.oldest <= pg::settings::max_outbox_rows) return;
  Outbox(mapping_id).NoteGap("the outbox is full");
  known.has_gap = true;
}

// Nothing: a column is not there any more.
std::optional<RowName> NameIn(HeapTuple tuple, TupleDesc desc, const std::vector<std::string> &columns) {
  RowName name;
  for (const std::string &column : columns) {
    int const number = pg::Call([&] { return SPI_fnumber(desc, column.c_str()); });
    if (number <= 0) return std::nullopt;
    const char *text = pg::Call([&] { return const_cast<const char *>(SPI_getvalue(tuple, desc, number)); });
    name.emplace_back(text == nullptr ? "" : text);  // no capture is empty: see ReverseMapping::Canonical
  }
  return name;
}

}  // namespace
}  // namespace prm

// redis_migrate.note_change(mapping_id, column, …), a trigger: see the SQL comment. Errors: 39P01 when it is
// called otherwise. A trigger that is left of a reverse feed, or that others have made on their own tables,
// does nothing: the application goes on.
PRM_FUNCTION(note_change) {
  using namespace prm;
  if (!CALLED_AS_TRIGGER(fcinfo))
    throw pg::Failure(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED, "redis_migrate.note_change is a trigger");
  // What other triggers do with our rows is not ours.
  bool const is_direct = DatumGetInt32(pg_trigger_depth(nullptr)) == 1;
  if (pg::OwnWrite::IsFromRedis() && is_direct) return Datum{0};
  auto *data = reinterpret_cast<TriggerData *>(fcinfo->context);
  const Trigger &trigger = *data->tg_trigger;
  int64 const mapping_id = trigger.tgnargs > 0 ? strtoll(trigger.tgargs[0], nullptr, 10) : 0;
  std::vector<std::string> const columns(trigger.tgargs + std::min<int>(1, trigger.tgnargs),
                                         trigger.tgargs + trigger.tgnargs);
  pg::Spi spi;
  static LocalTransactionId transaction = InvalidLocalTransactionId;
  static auto &known_of = *new std::map<int64, Known>();
  if (transaction != pg::CurrentLocalTransaction()) known_of.clear();
  transaction = pg::CurrentLocalTransaction();
  auto found = known_of.find(mapping_id);
  if (found == known_of.end()) {
    Known const known = ReadKnown(mapping_id);
    if (known.target == InvalidOid) return Datum{0};
    found = known_of.emplace(mapping_id, known).first;
  }
  Known &known = found->second;
  Oid const relation = RelationGetRelid(data->tg_relation);
  if (relation != known.target && known.partitions.count(relation) == 0) {
    if (!IsPartOf(known.target, relation)) return Datum{0};
    known.partitions.insert(relation);
  }
  Outbox const outbox(mapping_id);
  if (TRIGGER_FIRED_BY_TRUNCATE(data->tg_event)) {
    outbox.NoteGap("the target was truncated");
    return Datum{0};
  }
  CanonicalText canonical;
  TupleDesc const desc = RelationGetDescr(data->tg_relation);
  auto note = [&](HeapTuple tuple) {
    std::optional<RowName> name = NameIn(tuple, desc, columns);
    if (name)
      Note(mapping_id, *name, known);
    else if (!IsInGap(mapping_id))
      outbox.NoteGap("a column of the name was renamed or dropped");
    return name;
  };
  std::optional<RowName> const before = note(data->tg_trigtuple);
  if (TRIGGER_FIRED_BY_UPDATE(data->tg_event) && before != NameIn(data->tg_newtuple, desc, columns))
    note(data->tg_newtuple);
  return Datum{0};
}
