// The trigger of targets whose changes go back to Redis. It runs for each row that the application writes, so
// what it needs to know it reads once in a transaction, and it stores its rows without the executor.
#include "ledger/ledger.h"
#include "pg/commit_signal.h"
#include "pg/entry.h"
#include "pg/identity.h"
#include "pg/own_rows.h"
#include "pg/own_write.h"
#include "pg/session_lock.h"
#include "pg/settings.h"
#include "pg/transaction.h"
#include "reverse/outbox.h"

namespace prm {
namespace {

using pg::Spi;
using pg::SqlParam;

// A transaction's knowledge of the outbox of a mapping.
struct Known {
  Oid target = InvalidOid;   // invalid: not installed
  std::set<Oid> partitions;  // of the target
  bool has_gap = false;
  int64 oldest = 0;  // changes before it have been sent
  std::string expires_column;
  int64 feed_id = 0;
  SubTransactionId signalled = InvalidSubTransactionId;  // the last subtransaction that signals the feed
  Oid outbox = InvalidOid;
  Oid outbox_ids = InvalidOid;  // its sequence
};

Known ReadKnown(int64 mapping_id) {
  Known known;
  pg::Spi spi;
  pg::LatestSnapshotScope latest;
  pg::AsExtensionOwner as_owner;
  auto rows = Spi::ExecuteKept(
      R"sql(SELECT m.target_relation,
                   EXISTS (SELECT FROM redis_migrate.outbox_gap AS g WHERE g.mapping_id = m.mapping_id),
                   m.oldest, m.expires_column,
                   coalesce((SELECT f.feed_id FROM redis_migrate.reverse_feed AS f WHERE f.migration = m.migration), 0),
                   'redis_migrate.outbox'::regclass, 'redis_migrate.outbox_outbox_id_seq'::regclass
            FROM redis_migrate.reverse_mapping AS m
            WHERE m.mapping_id = $1)sql",
      {SqlParam::Int8(mapping_id)}, true);
  if (rows.size() == 0) return known;
  known.target = DatumGetObjectId(rows[0].Value(0));
  known.has_gap = rows[0].Bool(1);
  known.oldest = rows[0].Int8(2);
  known.expires_column = rows[0].Text(3);
  known.feed_id = rows[0].Int8(4);
  known.outbox = DatumGetObjectId(rows[0].Value(5));
  known.outbox_ids = DatumGetObjectId(rows[0].Value(6));
  return known;
}

// nullptr: not installed.
Known *KnownOf(int64 mapping_id) {
  static LocalTransactionId transaction = InvalidLocalTransactionId;
  static auto &known_of = *new std::map<int64, Known>();
  if (transaction != pg::CurrentLocalTransaction()) known_of.clear();
  transaction = pg::CurrentLocalTransaction();
  auto found = known_of.find(mapping_id);
  if (found == known_of.end()) {
    Known const known = ReadKnown(mapping_id);
    if (known.target == InvalidOid) return nullptr;
    found = known_of.emplace(mapping_id, known).first;
  }
  return &found->second;
}

// A partitioned table's triggers are its partitions', too.
bool IsPartOf(Oid target, Oid relation) {
  pg::Spi spi;
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

void NoteGap(int64 mapping_id, const char *reason) {
  pg::Spi spi;
  Outbox(mapping_id).NoteGap(reason);
}

// Returns its number. The transaction has its id before: see Outbox::Read.
int64 Store(const Known &known, int64 mapping_id, const RowName &name) {
  int64 const id = pg::NextValue(known.outbox_ids);
  pg::StoreRow(known.outbox, {Int64GetDatum(id), Int64GetDatum(mapping_id), SqlParam::TextArray(name).value,
                              TimestampTzGetDatum(GetCurrentTimestamp())});
  return id;
}

void Note(int64 mapping_id, const RowName &name, Known &known) {
  if (known.has_gap && IsInGap(mapping_id)) return;
  int64 const id = Store(known, mapping_id, name);
  if (id - known.oldest <= pg::settings::max_outbox_rows) return;
  NoteGap(mapping_id, "the outbox is full");
  known.has_gap = true;
}

// Whether the text of its values is the same in all sessions.
bool HasOneText(Oid type) {
  switch (type) {
    case TEXTOID:
    case VARCHAROID:
    case BPCHAROID:
    case INT2OID:
    case INT4OID:
    case INT8OID:
    case NUMERICOID:
    case UUIDOID:
    case INETOID:
      return true;
    default:
      return false;
  }
}

// The columns that name the key, by their numbers; nothing: one is not there any more.
std::optional<std::vector<int>> FindColumns(const Trigger &trigger, TupleDesc desc) {
  std::vector<int> numbers;
  for (int i = 1; i < trigger.tgnargs; ++i) {
    int const number = pg::Call([&] { return SPI_fnumber(desc, trigger.tgargs[i]); });
    if (number <= 0) return std::nullopt;
    numbers.push_back(number);
  }
  return numbers;
}

RowName NameIn(HeapTuple tuple, TupleDesc desc, const std::vector<int> &numbers) {
  RowName name;
  for (int const number : numbers) {
    char *text = pg::Call([&] { return SPI_getvalue(tuple, desc, number); });
    name.emplace_back(text == nullptr ? "" : text);  // no capture is empty: see ReverseMapping::Canonical
    if (text != nullptr) pfree(text);
  }
  return name;
}

// Whether the key has expired in Redis by itself, as the row has here.
bool HasExpired(HeapTuple tuple, TupleDesc desc, const std::string &column) {
  const char *name = column.c_str();
  return pg::Call([&] {
    int const number = SPI_fnumber(desc, name);
    if (number <= 0 || SPI_gettypeid(desc, number) != TIMESTAMPTZOID) return false;
    bool is_null = false;
    Datum const expires_at = SPI_getbinval(tuple, desc, number, &is_null);
    return !is_null && DatumGetTimestampTz(expires_at) <= GetCurrentTimestamp();
  });
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
  auto *data = reinterpret_cast<TriggerData *>(fcinfo->context);
  // PostgreSQL stores the row that a BEFORE trigger returns.
  if (TRIGGER_FIRED_FOR_ROW(data->tg_event) && !TRIGGER_FIRED_AFTER(data->tg_event))
    return PointerGetDatum(TRIGGER_FIRED_BY_UPDATE(data->tg_event) ? data->tg_newtuple : data->tg_trigtuple);
  // Changes that other triggers make because of our rows are not ours.
  bool const is_direct = DatumGetInt32(pg_trigger_depth(nullptr)) == 1;
  if (pg::OwnWrite::IsFromRedis() && is_direct) return Datum{0};
  if (!TRIGGER_FIRED_AFTER(data->tg_event) ||
      (!TRIGGER_FIRED_FOR_ROW(data->tg_event) && !TRIGGER_FIRED_BY_TRUNCATE(data->tg_event)))
    return Datum{0};
  const Trigger &trigger = *data->tg_trigger;
  int64 const mapping_id = trigger.tgnargs > 0 ? strtoll(trigger.tgargs[0], nullptr, 10) : 0;
  Known *const known = KnownOf(mapping_id);
  if (known == nullptr) return Datum{0};
  Oid const relation = RelationGetRelid(data->tg_relation);
  if (relation != known->target && known->partitions.count(relation) == 0) {
    if (!IsPartOf(known->target, relation)) return Datum{0};
    known->partitions.insert(relation);
  }
  if (SubTransactionId const current = GetCurrentSubTransactionId(); known->signalled != current) {
    pg::SignalAtCommit(known->feed_id);
    known->signalled = current;
  }
  if (TRIGGER_FIRED_BY_TRUNCATE(data->tg_event)) {
    NoteGap(mapping_id, "the target was truncated");
    return Datum{0};
  }
  TupleDesc const desc = RelationGetDescr(data->tg_relation);
  HeapTuple const row = data->tg_trigtuple;
  if (TRIGGER_FIRED_BY_DELETE(data->tg_event) && is_direct && pg::OwnWrite::IsSweep() &&
      !known->expires_column.empty() && HasExpired(row, desc, known->expires_column))
    return Datum{0};
  std::optional<std::vector<int>> const columns = FindColumns(trigger, desc);
  if (!columns) {
    if (!IsInGap(mapping_id)) NoteGap(mapping_id, "a column of the name was renamed or dropped");
    return Datum{0};
  }
  std::optional<CanonicalText> canonical;
  for (int const number : *columns)
    if (!canonical && !HasOneText(pg::Call([&] { return SPI_gettypeid(desc, number); }))) canonical.emplace();
  RowName const name = NameIn(row, desc, *columns);
  Note(mapping_id, name, *known);
  if (TRIGGER_FIRED_BY_UPDATE(data->tg_event))
    if (RowName const changed = NameIn(data->tg_newtuple, desc, *columns); changed != name)
      Note(mapping_id, changed, *known);
  return Datum{0};
}
