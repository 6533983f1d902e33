#include "run/dry_run.h"

#include "ledger/ledger_settling.h"
#include "pg/arguments.h"
#include "pg/encoding.h"
#include "pg/entry.h"
#include "pg/meanwhile.h"
#include "pg/spi.h"
#include "pg/transaction.h"
#include "rdb/dump.h"
#include "store/archive_source.h"

namespace prm {
namespace {

constexpr uint64 kMostBytes = 64 * 1024 * 1024;

}  // namespace

DryRun::DryRun(const Migration &migration, const std::string &source,
               const std::optional<std::string> &priority, const std::optional<std::string> &mapping,
               int64 max_keys)
    : migration_(migration), routing_(migration, priority, mapping) {
  PassFilter filter(routing_, std::nullopt);
  SourceReader opened(PlaceOf(migration, source), filter, "", true);
  uint64 bytes = 0;
  int64 keys = 0;
  std::string position;
  source::Batch batch;
  while (keys < max_keys && bytes < kMostBytes && opened.Next(batch, position)) {
    if (opened.TakeRestarted()) {
      batches_.clear();
      passed_over_ = Tally();
      keys = 0;
      bytes = 0;
    }
    position = batch.position;
    PassOver(batch, max_keys - keys);
    keys += static_cast<int64>(batch.entries.size());
    bytes += batch.bytes;
    batches_.push_back(std::move(batch));
  }
  for (const source::Batch &read : batches_)
    for (const source::Entry &entry : read.entries) entries_.push_back(&entry);
}

// Counts the entries that are not selected, of which the name alone was read, and leaves at most `most` of
// the others.
void DryRun::PassOver(source::Batch &batch, int64 most) {
  std::vector<source::Entry> selected;
  for (source::Entry &entry : batch.entries) {
    pg::Proceed();
    if (static_cast<int64>(selected.size()) == most) break;
    Route const route = Route::FromNumber(entry.route);
    if (routing_.IsSelected(route)) {
      selected.push_back(std::move(entry));
      continue;
    }
    batch.bytes -= entry.key.size();
    Tally::Pattern const pattern =
        route.pattern ? Tally::Pattern(routing_.patterns()[*route.pattern].text()) : Tally::Pattern();
    ++passed_over_.read[pattern];
    ++passed_over_.outcomes[{pattern, Outcome::kSkipped,
                             route.kind == Route::kDeclared ? "declared" : "not_selected"}];
  }
  batch.entries = std::move(selected);
}

void DryRun::Play(std::vector<PreviewRow> *preview, bool bytes) {
  BatchStore store(migration_, routing_);
  BatchOptions options;
  options.preview = preview;
  options.preview_bytes = bytes;
  tally_ = passed_over_;
  tally_.by_key.emplace();
  pg::InRolledBackSubtransaction([&] {
    pg::Spi::Execute("SET CONSTRAINTS ALL IMMEDIATE");
    for (const Mapping *mapping : routing_.Mappings()) SettleLedger(*mapping);
    for (int level = 0; level < routing_.levels(); ++level) {
      options.defer = true;
      store.Process(entries_, level, {}, options, tally_);
      options.defer = false;
      std::vector<const source::Entry *> deferred = std::exchange(tally_.deferred, {});
      store.Process(deferred, level, KeysOf(deferred), options, tally_);
    }
  });
}

}  // namespace prm

// redis_migrate.preview(migration text, mapping text, max_keys integer, bytes boolean): what would happen to
// each key, and the rows. Nothing is written. Errors: 22023; those of a run.
PRM_FUNCTION(preview) {
  using namespace prm;
  int64 const max_keys = PG_ARGISNULL(2) ? 100 : PG_GETARG_INT32(2);
  if (max_keys < 0) throw pg::Failure(ERRCODE_INVALID_PARAMETER_VALUE, "max_keys must not be negative");
  pg::Call([&] { InitMaterializedSRF(fcinfo, 0); });
  pg::Spi spi;
  Migration migration = LoadMigration(pg::TextArgument(fcinfo, 0, "migration"));
  std::optional<std::string> mapping = pg::OptionalTextArgument(fcinfo, 1);
  DryRun dry_run(migration, migration.source, std::nullopt, mapping, max_keys);
  std::vector<PreviewRow> rows;
  bool const bytes = !PG_ARGISNULL(3) && PG_GETARG_BOOL(3);
  dry_run.Play(&rows, bytes);

  std::map<const source::Entry *, const Reject *> rejects;
  for (const Reject &reject : dry_run.tally().rejects) rejects.emplace(reject.entry, &reject);
  std::multimap<const source::Entry *, const PreviewRow *> rows_of_key;
  for (const PreviewRow &row : rows) rows_of_key.emplace(row.entry, &row);
  auto *result = reinterpret_cast<ReturnSetInfo *>(fcinfo->resultinfo);
  for (const source::Entry *entry : dry_run.entries()) {
    Outcome const outcome = dry_run.outcomes().at(entry).first;
    const std::string &reason = dry_run.outcomes().at(entry).second;
    auto reject = rejects.find(entry);
    auto emit = [&](const PreviewRow *row) {
      Datum values[8] = {};
      bool nulls[8] = {};
      values[0] = Int32GetDatum(entry->db);
      std::string scratch;
      const std::optional<Bytes> key = pg::TextFromUtf8(entry->key, scratch);
      nulls[1] = !key;
      if (key) values[1] = pg::TextDatum(*key);
      nulls[2] = key && !bytes;
      values[2] = pg::ByteaDatum(entry->key);
      values[3] = pg::TextDatum(kOutcomeNames[static_cast<int>(outcome)]);
      nulls[4] = reason.empty();
      values[4] = pg::TextDatum(reason);
      nulls[5] = reject == rejects.end();
      if (!nulls[5]) values[5] = pg::TextDatum(reject->second->message);
      nulls[6] = row == nullptr && (nulls[5] || !reject->second->mapping);
      if (!nulls[6]) values[6] = pg::TextDatum(row != nullptr ? row->mapping : *reject->second->mapping);
      nulls[7] = row == nullptr;
      if (row != nullptr)
        values[7] =
            pg::Call([&] { return DirectFunctionCall1(jsonb_in, CStringGetDatum(row->row.c_str())); });
      pg::Call([&] { tuplestore_putvalues(result->setResult, result->setDesc, values, nulls); });
    };
    auto [begin, end] = rows_of_key.equal_range(entry);
    if (begin == end || outcome == Outcome::kRejected) emit(nullptr);
    for (auto row = begin; row != end; ++row) emit(row->second);
  }
  return static_cast<Datum>(0);
}
