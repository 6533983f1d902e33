#include "run/late_expiries.h"

#include "ledger/ledger.h"
#include "mapping/family_state.h"
#include "mapping/mapping_settings.h"
#include "mapping/target.h"
#include "pg/own_write.h"
#include "pg/spi.h"
#include "pg/time.h"

namespace prm {

using pg::Spi;
using pg::SqlParam;
using source::EntryState;

namespace {

// "column = key of the row AND …", of the parameter $2: the text of an array.
std::string IsRow(const Target &target) {
  std::string condition;
  for (size_t i = 0; i < target.keys.size(); ++i) {
    const KeyColumn &key = target.keys[i];
    const char *type = pg::Call([&] {
      return const_cast<const char *>(
          format_type_extended(key.column.type, -1, FORMAT_TYPE_TYPEMOD_GIVEN | FORMAT_TYPE_FORCE_QUALIFY));
    });
    condition += (i == 0 ? "" : " AND ") + key.Equal("target." + pg::QuoteIdentifier(key.column.name),
                                                     "CAST(($2::pg_catalog.text::pg_catalog.text[])[" +
                                                         std::to_string(i + 1) + "] AS " + type + ")");
  }
  return condition;
}

// The reverse feed writes it to Redis in any case: it may have read the row before, and write the earlier
// expiry over the later one.
void MergeExpiry(const Mapping &mapping, const source::Entry &entry, const RowDifference &difference) {
  MappingSettings const settings(mapping);
  CanonicalText const canonical;  // as the text of the row's key is
  Target const target = LoadTarget(mapping);
  std::string const column = pg::QuoteIdentifier(*difference.column);
  pg::WriteForRedis const for_redis;
  Spi::Execute(
      "UPDATE " + target.name + " AS target SET " + column + " = CASE WHEN target." + column +
          " OPERATOR(pg_catalog.<) $1 OR $1 IS NULL THEN $1 ELSE target." + column + " END WHERE " +
          IsRow(target),
      {{TIMESTAMPTZOID, entry.expires_at_ms ? TimestampTzGetDatum(pg::FromUnixMs(*entry.expires_at_ms)) : 0,
        !entry.expires_at_ms},
       SqlParam::Text(difference.row_key)});
}

bool HasRow(const BatchComparison::OfKey &found) {
  return std::all_of(found.rows.begin(), found.rows.end(),
                     [](const auto &rows) { return rows.second.missing == 0; });
}

// Whether the rows differ from the key in nothing but its expiry.
bool DiffersInExpiry(const BatchComparison::OfKey &found) {
  return HasRow(found) && std::all_of(found.rows.begin(), found.rows.end(),
                                      [](const auto &rows) { return rows.second.different == 0; });
}

}  // namespace

void SettleHarmless(const Migration &migration, const Routing &routing, BatchStore &store,
                    std::vector<LateWrite> &late) {
  std::map<std::string, bool> is_both;
  for (const LateWrite &write : late)
    if (is_both.count(write.pattern) == 0)
      is_both[write.pattern] = FamilyState(migration.name, write.pattern) == "both";
  std::vector<const source::Entry *> compared;
  for (const LateWrite &write : late)
    if (!write.is_gone && write.entry->state == EntryState::kRead &&
        (write.may_be_own || is_both[write.pattern]))
      compared.push_back(write.entry);
  if (compared.empty()) return;
  BatchComparison comparison;
  comparison.most_differences = SIZE_MAX;
  BatchOptions options;
  options.comparison = &comparison;
  options.takes_owned = true;
  Tally tally;
  for (int level = 0; level < routing.levels(); ++level) store.Process(compared, level, {}, options, tally);
  std::set<const source::Entry *> harmless(compared.begin(), compared.end());
  for (const Reject &reject : tally.rejects) harmless.erase(reject.entry);
  for (const LateWrite &write : late) {
    auto const found = comparison.unequal.find(write.entry);
    if (found == comparison.unequal.end()) continue;
    const BatchComparison::OfKey &of = found->second;
    if (!is_both[write.pattern] || !(write.only_expiry ? HasRow(of) : DiffersInExpiry(of))) {
      harmless.erase(write.entry);
      continue;
    }
    for (const RowDifference &difference : of.differences)
      for (const Mapping &mapping : migration.mappings)
        if (difference.is_expiry && mapping.name == difference.mapping)
          MergeExpiry(mapping, *write.entry, difference);
  }
  late.erase(std::remove_if(late.begin(), late.end(),
                            [&](const LateWrite &write) { return harmless.count(write.entry) > 0; }),
             late.end());
}

}  // namespace prm
