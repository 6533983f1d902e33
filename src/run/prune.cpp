#include "run/prune.h"

#include "ledger/departure.h"
#include "ledger/ledger.h"
#include "mapping/expiry_columns.h"
#include "mapping/mapping_settings.h"
#include "pg/arguments.h"
#include "pg/identity.h"
#include "pg/spi.h"
#include "pg/transaction.h"
#include "store/packed_rows.h"

namespace prm {

using pg::Spi;
using pg::SqlParam;

namespace {

constexpr char kSeenName[] = "redis_seen";
constexpr int64 kRejectsAtOnce = 5000;
constexpr size_t kGoneAtOnce = 5000;

// Of entries l of the ledger whose owners are gone.
constexpr char kOwnerIsGone[] = R"sql(
            l.mapping_id = $1
            AND NOT EXISTS (SELECT FROM redis_migrate.seen_row AS s
                            WHERE s.run_id = $2 AND s.mapping_id = $1 AND s.row_key = l.row_key
                                AND NOT s.lost)
            AND NOT EXISTS (SELECT FROM redis_migrate.reject AS r
                            WHERE r.run_id = $2 AND r.db = l.db AND r.key_bytes = l.key_bytes))sql";

// Whether another key yields the row of such an entry.
constexpr char kHasOther[] = R"sql(
            EXISTS (SELECT FROM redis_migrate.seen_row AS s
                    WHERE s.run_id = $2 AND s.mapping_id = $1 AND s.row_key = l.row_key))sql";

// Removes the entries of rows whose owners are gone, and adds the rows that no key yields any more to `gone`.
// A row that another key yields stays, and is counted: the next run makes it that key's.
int64 TakeGoneFromLedger(const Mapping &mapping, int64 run_id, GoneRows &gone) {
  pg::KeptStatement take(std::string("DELETE FROM redis_migrate.ledger AS l WHERE ") + kOwnerIsGone +
                         " AND NOT " + kHasOther + " RETURNING l.row_key, NULL::bytea");
  pg::AsExtensionOwner as_owner;
  take.ExecuteInto(gone.store(), {SqlParam::Int8(mapping.id), SqlParam::Int8(run_id)});
  // Of those that are left, another key has the row.
  return static_cast<int64>(
      Spi::Execute(std::string("DELETE FROM redis_migrate.ledger AS l WHERE ") + kOwnerIsGone,
                   {SqlParam::Int8(mapping.id), SqlParam::Int8(run_id)})
          .processed());
}

int64 RejectsOfPattern(const Mapping &mapping, int64 run_id) {
  pg::AsExtensionOwner as_owner;
  return Spi::Execute("SELECT count(*) FROM redis_migrate.reject WHERE run_id = $1 AND pattern = $2",
                      {SqlParam::Int8(run_id), SqlParam::Text(mapping.pattern)})[0]
      .Int8(0);
}

int64 CountRows(const Mapping &mapping, const Target &target) {
  if (mapping.ledger == "packed" && !mapping.exclusive) return PackedLedger::Count(mapping.id);
  if (mapping.ledger != "full")
    return Spi::Execute("SELECT pg_catalog.count(*) FROM " + target.name)[0].Int8(0);
  pg::AsExtensionOwner as_owner;
  return Spi::Execute("SELECT count(*) FROM redis_migrate.ledger WHERE mapping_id = $1",
                      {SqlParam::Int8(mapping.id)})[0]
      .Int8(0);
}

// Whether the run met rows of the mapping, or a key that it rejected.
bool HasMetAny(const Mapping &mapping, int64 run_id) {
  if (RejectsOfPattern(mapping, run_id) > 0) return true;
  if (mapping.ledger == "packed") return PackedLedger::HasSeen(mapping.id, run_id);
  pg::AsExtensionOwner as_owner;
  return Spi::Execute(
             "SELECT EXISTS (SELECT FROM redis_migrate.seen_row WHERE run_id = $1 AND mapping_id = $2)",
             {SqlParam::Int8(run_id), SqlParam::Int8(mapping.id)})[0]
      .Bool(0);
}

// Rows of keys that the run rejected count as met.
void NoteRejectedAsSeen(const Mapping &mapping, const KeyPattern &pattern, PackedRows &rows, int64 run_id) {
  int64 last = 0;
  for (;;) {
    pg::Context context("redis_migrate rejected keys");
    pg::SwitchContext in_context(context.get());
    std::vector<source::Entry> keys;
    {
      pg::SnapshotScope snapshot;  // key names are fetched from TOAST after the statement
      pg::AsExtensionOwner as_owner;
      auto rejects = Spi::Execute(
          R"sql(SELECT reject_id, db, key_bytes
                FROM redis_migrate.reject
                WHERE run_id = $1 AND pattern = $2 AND reject_id > $3
                ORDER BY reject_id
                LIMIT $4)sql",
          {SqlParam::Int8(run_id), SqlParam::Text(mapping.pattern), SqlParam::Int8(last),
           SqlParam::Int8(kRejectsAtOnce)});
      for (uint64 i = 0; i < rejects.size(); ++i) {
        last = rejects[i].Int8(0);
        source::Entry key;
        key.db = rejects[i].Int4(1);
        key.key = pg::DatumBytes(rejects[i].Value(2));
        key.plain = true;  // its value is not looked at
        keys.push_back(std::move(key));
      }
    }
    if (keys.empty()) return;
    std::vector<const source::Entry *> entries;
    std::vector<int> which;
    Match match;
    for (const source::Entry &key : keys) {
      // A name that does not fit the pattern had no row.
      if (pattern.MatchKey(key.key, match) != Fit::kFits) continue;
      which.push_back(static_cast<int>(entries.size()));
      entries.push_back(&key);
    }
    rows.NoteSeenRowsOf(entries, which, run_id);
  }
}

TupleDesc OneColumn(const char *name, Oid type) {
  return pg::Call([&] {
    TupleDesc desc = CreateTemplateTupleDesc(1);
    TupleDescInitEntry(desc, 1, name, type, -1, 0);
    TupleDescFinalize(desc);
    return desc;
  });
}

void PrunePacked(const Mapping &mapping, const Target &target, int64 run_id, Journal &journal,
                 PruneResult &result) {
  KeyPattern const pattern = ParsePattern(mapping.pattern);
  BatchShape const shape(pattern, ExpandFromName(mapping.expand));
  MappingQuery const query(mapping, shape, target);
  PackedRows rows(mapping, target, query);
  NoteRejectedAsSeen(mapping, pattern, rows, run_id);
  rows.set_journal(&journal);
  rows.DeleteUnseen(run_id, result.counts);
}

// The identities that the run met, as a relation that the owner of the migration can read.
void FillSeen(const Mapping &mapping, int64 run_id, pg::Tuplestore &seen) {
  pg::KeptStatement find(
      "SELECT DISTINCT row_key FROM redis_migrate.seen_row WHERE run_id = $1 AND mapping_id = $2");
  pg::AsExtensionOwner as_owner;
  find.ExecuteInto(seen, {SqlParam::Int8(run_id), SqlParam::Int8(mapping.id)});
}

// The condition that a row of an exclusive mapping without a ledger is not among redis_seen.
std::string IsUnseen(const Ledger &ledger) {
  return "NOT EXISTS (SELECT FROM (SELECT row_key::pg_catalog.text[] AS row_key FROM redis_seen) AS seen "
         "WHERE " +
         ledger.HasIdentity("target", "seen.row_key") + ")";
}

void FindUnseenRows(const Mapping &mapping, const Target &target, int64 run_id, GoneRows &gone) {
  Ledger const ledger(mapping, target);
  TupleDesc desc = OneColumn("row_key", TEXTOID);
  pg::Tuplestore seen;
  FillSeen(mapping, run_id, seen);
  pg::NamedRows named(kSeenName, desc, seen.get());
  CanonicalText canonical;
  pg::KeptStatement("SELECT " + ledger.RowKeyExpression("target") + ", NULL::pg_catalog.bytea FROM " +
                    target.name + " AS target WHERE " + IsUnseen(ledger))
      .ExecuteInto(gone.store());
}

}  // namespace

std::vector<std::string> FindExpiryColumns(const Mapping &mapping, const Target &target) {
  if (!mapping.on_expire) return {};
  BatchShape const shape(ParsePattern(mapping.pattern), ExpandFromName(mapping.expand));
  return ExpiryColumns(MappingQuery(mapping, shape, target).facts());
}

PruneResult Prune(const Mapping &mapping, int64 run_id, bool force) {
  PruneResult result;
  if (mapping.KeepsGone()) {
    result.outcome = "kept";
    result.why = "its on_delete is 'keep'";
    return result;
  }
  pg::Context context("redis_migrate prune");
  pg::SwitchContext in_context(context.get());
  MappingSettings settings(mapping);
  // Everything is read once, and the statistics of what the run has filled are old.
  settings.Set("enable_nestloop", "off");
  Target target = LoadTarget(mapping);
  std::vector<std::string> const expires = FindExpiryColumns(mapping, target);
  Journal journal(mapping, target);
  journal.Begin(run_id, false);
  Ledger ledger(mapping, target, expires);
  ledger.set_journal(&journal);
  if (!force) result.rows = CountRows(mapping, target);
  if (result.rows > 0 && !HasMetAny(mapping, run_id)) {
    result.outcome = "refused";
    result.why = "the run met none of its keys, and would have deleted all " + std::to_string(result.rows);
    return result;
  }
  if (mapping.ledger == "packed") {
    PrunePacked(mapping, target, run_id, journal, result);
    return result;
  }
  if (mapping.ledger == "full") {
    GoneRows gone;
    int64 const left_to_others = TakeGoneFromLedger(mapping, run_id, gone);
    auto hand_over = [&](const Ledger::TakeRowKey &take) {
      gone.ForEachPortion(kGoneAtOnce, [&](const std::vector<GoneRow> &rows) {
        for (const GoneRow &row : rows) take(row.row_key);
      });
    };
    ledger.DeleteRows(hand_over, result.counts);
    if (left_to_others > 0)
      pg::Report(NOTICE,
                 std::to_string(left_to_others) + " rows of mapping \"" + mapping.name + "\" lost their keys",
                 "Other keys yield the same rows. They take them at the next run.");
    return result;
  }
  if (int64 rejects = RejectsOfPattern(mapping, run_id); rejects > 0) {
    result.outcome = "kept";
    result.why = std::to_string(rejects) +
                 " keys of its pattern were rejected, and without a ledger nothing tells their rows from "
                 "those of deleted keys";
    return result;
  }
  TupleDesc desc = OneColumn("row_key", TEXTOID);
  pg::Tuplestore seen;
  FillSeen(mapping, run_id, seen);
  pg::NamedRows named(kSeenName, desc, seen.get());
  DeleteWhere(mapping, target.name, expires, IsUnseen(ledger), journal, result.counts);
  return result;
}

void FindGoneRows(const Mapping &mapping, const Target &target, int64 run_id, GoneRows &gone) {
  pg::LocalSettings settings;
  settings.Set("enable_nestloop", "off");  // as in Prune
  if (mapping.ledger == "packed") {
    KeyPattern const pattern = ParsePattern(mapping.pattern);
    BatchShape const shape(pattern, ExpandFromName(mapping.expand));
    MappingQuery const query(mapping, shape, target);
    PackedRows rows(mapping, target, query);
    NoteRejectedAsSeen(mapping, pattern, rows, run_id);
    CanonicalText canonical;
    return rows.FindUnseen(run_id, Ledger(mapping, target).RowKeyExpression("target"), gone.store());
  }
  if (mapping.ledger == "none") return FindUnseenRows(mapping, target, run_id, gone);
  pg::KeptStatement find(std::string("SELECT l.row_key, NULL::bytea FROM redis_migrate.ledger AS l WHERE ") +
                         kOwnerIsGone + " AND NOT " + kHasOther);
  pg::AsExtensionOwner as_owner;
  find.ExecuteInto(gone.store(), {SqlParam::Int8(mapping.id), SqlParam::Int8(run_id)});
}

bool IsFaultOfRows(const Mapping &mapping, const pg::PgError &error) {
  if (pg::FaultOf(error.sqlstate()) != pg::Fault::kUnclear)
    return pg::FaultOf(error.sqlstate()) == pg::Fault::kRow;
  // Without rows a foreign server may not be asked at all.
  if (ERRCODE_TO_CATEGORY(error.sqlstate()) == ERRCODE_FDW_ERROR) return false;
  try {
    pg::InRolledBackSubtransaction([&] {
      MappingSettings settings(mapping);
      BatchShape const shape(ParsePattern(mapping.pattern), ExpandFromName(mapping.expand));
      MappingQuery const query(mapping, shape, LoadTarget(mapping));
      for (const std::string &action : {mapping.on_delete, mapping.on_expire.value_or(mapping.on_delete)})
        if (action != "keep") Spi::Execute(DeleteStatement(mapping.target, action) + " WHERE false");
    });
    return true;
  } catch (const pg::PgError &without_rows) {
    if (pg::FaultOf(without_rows.sqlstate()) == pg::Fault::kServer) throw;
    return without_rows.sqlstate() != error.sqlstate();
  }
}

}  // namespace prm
