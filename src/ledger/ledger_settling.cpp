#include "ledger/ledger_settling.h"

#include "ledger/ledger.h"
#include "ledger/ledger_segments.h"
#include "ledger/packed_ledger.h"
#include "mapping/ledger_choice.h"
#include "mapping/ledger_mark.h"
#include "mapping/mapping_settings.h"
#include "pg/arguments.h"
#include "pg/identity.h"
#include "pg/spi.h"
#include "pg/transaction.h"
#include "pg/wait.h"

namespace prm {

using pg::Spi;
using pg::SqlParam;

namespace {

// As the upgrade script has it.
constexpr char kOldReason[] = "the mapping was defined with version 0.1";
constexpr char kRecordedName[] = "redis_recorded";
constexpr int kEntriesAtOnce = 10000;

bool HasPackedEntries(int64 mapping_id) {
  pg::AsExtensionOwner as_owner;
  return Spi::Execute(
             R"sql(SELECT EXISTS (SELECT FROM redis_migrate.ledger_segment WHERE mapping_id = $1)
                       OR EXISTS (SELECT FROM redis_migrate.ledger_batch WHERE mapping_id = $1 AND NOT merged))sql",
             {SqlParam::Int8(mapping_id)})[0]
      .Bool(0);
}

void HashAnew(const Mapping &mapping) {
  pg::AsExtensionOwner as_owner;
  Spi::Execute(R"(
UPDATE redis_migrate.ledger SET
    row_hash = ('x' || encode(substr(redis_migrate.row_hash(mapping_id, row_key), 1, 8), 'hex'))::bit(64)::bigint,
    key_hash = ('x' || encode(substr(redis_migrate.row_hash(mapping_id, db, key_bytes), 1, 8), 'hex'))::bit(64)::bigint
WHERE mapping_id = $1)",
               {SqlParam::Int8(mapping.id)});
  pg::Report(
      NOTICE, "the full ledger of mapping \"" + mapping.name + "\" was hashed with another secret",
      "redis_migrate.ledger_secret was not restored with it. Nothing is lost: its entries were hashed anew.");
}

// Copies identities of a full ledger, from a hash on, in the order of their hashes. Returns the last hash.
std::optional<int64> ReadRecorded(int64 mapping_id, int64 first, TupleDesc desc, pg::Tuplestore &recorded) {
  pg::AsExtensionOwner as_owner;
  pg::Rows const rows = Spi::ExecuteKept(
      R"sql(SELECT row_key, row_hash
            FROM redis_migrate.ledger
            WHERE mapping_id = $1 AND row_hash >= $2
            ORDER BY row_hash FETCH FIRST $3 ROWS WITH TIES)sql",
      {SqlParam::Int8(mapping_id), SqlParam::Int8(first), SqlParam::Int8(kEntriesAtOnce)});
  for (uint64 i = 0; i < rows.size(); ++i) {
    Datum value = rows[i].Value(0);
    bool null = false;
    recorded.Put(desc, &value, &null);
  }
  if (rows.size() == 0) return std::nullopt;
  return rows[rows.size() - 1].Int8(1);
}

// As what the rows were stored is not known.
void Convert(const Mapping &mapping) {
  {
    pg::AsExtensionOwner as_owner;
    if (!Spi::Execute("SELECT EXISTS (SELECT FROM redis_migrate.ledger WHERE mapping_id = $1)",
                      {SqlParam::Int8(mapping.id)})[0]
             .Bool(0))
      return;
  }
  Target const target = LoadTarget(mapping);
  std::string const hashes = "SELECT redis_migrate.row_hash(" +
                             Ledger(mapping, target).KeyValues("recorded.row_key") +
                             ") FROM (SELECT row_key::pg_catalog.text[] AS row_key FROM redis_recorded) AS "
                             "recorded";
  PackedLedger const packed(mapping.id, 0);
  std::optional<int64> last;
  do {
    pg::CheckInterrupts();
    pg::Context context("redis_migrate ledger");
    pg::SwitchContext in_context(context.get());
    TupleDesc desc = pg::Call([&] {
      TupleDesc made = CreateTemplateTupleDesc(1);
      TupleDescInitEntry(made, 1, "row_key", TEXTOID, -1, 0);
      TupleDescFinalize(made);
      return made;
    });
    pg::Tuplestore recorded;
    last = ReadRecorded(mapping.id, last ? *last + 1 : PG_INT64_MIN, desc, recorded);
    PackedLedger::News news;
    {
      // With the rights of the caller: types may be anybody's.
      pg::NamedRows named(kRecordedName, desc, recorded.get());
      pg::Rows const rows = Spi::Execute(hashes);
      for (uint64 i = 0; i < rows.size(); ++i)
        UnpackOrThrow(pg::DatumBytes(rows[i].Value(0)), Packing::kHashes, news.changed);
    }
    packed.Append(std::nullopt, std::move(news));
  } while (last && *last < PG_INT64_MAX);
  PackedLedger::Merge(mapping.id);
  pg::AsExtensionOwner as_owner;
  Spi::Execute("DELETE FROM redis_migrate.ledger WHERE mapping_id = $1", {SqlParam::Int8(mapping.id)});
}

}  // namespace

bool IsLedgerToBeChosen(const Mapping &mapping) { return mapping.ledger_reason == kOldReason; }

bool ChooseLedgerAnew(const Mapping &mapping) {
  if (!IsLedgerToBeChosen(mapping)) return false;
  MappingSettings settings(mapping);
  KeyPattern const pattern = ParsePattern(mapping.pattern);
  Target const target = LoadTarget(mapping);
  MappingQuery const query(mapping, BatchShape(pattern, ExpandFromName(mapping.expand)), target);
  LedgerChoice const choice = ChooseLedger(mapping, pattern, target, query.facts());
  pg::AsExtensionOwner as_owner;
  Spi::Execute("UPDATE redis_migrate.mapping SET ledger = $2, ledger_reason = $3 WHERE mapping_id = $1",
               {SqlParam::Int8(mapping.id), SqlParam::Text(choice.ledger), SqlParam::Text(choice.reason)});
  return true;
}

void RequireLedgerSecret(const Mapping &mapping) {
  if (mapping.ledger == "packed" && ReadLedgerMark(mapping.id) == LedgerMark::kOtherSecret &&
      HasPackedEntries(mapping.id))
    throw pg::Failure(
        ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
        "the packed ledger of mapping \"" + mapping.name + "\" was made with another secret",
        "redis_migrate.ledger_secret was not restored with it. Without the secret nothing tells which rows "
        "of " +
            mapping.target + " are the mapping's.",
        "Restore the row of redis_migrate.ledger_secret. Or " + HintToBeginAnew(mapping));
}

void SettleLedger(const Mapping &mapping) {
  if (mapping.ledger == "none") return;
  LedgerMark const mark = ReadLedgerMark(mapping.id);
  if (mark == LedgerMark::kCurrent) return;
  MappingSettings settings(mapping);
  RequireLedgerSecret(mapping);
  EnsureLedgerSecret();
  if (mark == LedgerMark::kNone && mapping.ledger == "packed") Convert(mapping);
  if (mark == LedgerMark::kOtherSecret && mapping.ledger == "full") HashAnew(mapping);
  SetLedgerMark(mapping);
}

}  // namespace prm
