#include "live/reject_streak.h"

#include "pg/arguments.h"
#include "pg/error.h"

namespace prm {

namespace {

constexpr size_t kMostKeys = 100;

}  // namespace

void RejectStreak::Take(const std::string &migration, const Tally &tally) {
  for (const auto &[mapping, rows] : tally.rows)
    if (rows.HasStored()) streaks_.erase(mapping);
  for (const Reject &reject : tally.rejects) {
    if (!reject.mapping || reject.partial) continue;
    auto const rows = tally.rows.find(*reject.mapping);
    if (rows != tally.rows.end() && rows->second.HasStored()) continue;
    Streak &streak = streaks_[*reject.mapping];
    std::string const reason = reject.sqlstate.value_or(reject.rule);
    if (streak.reason != reason) streak = {reason, {}};
    streak.keys.emplace(reject.entry->db, reject.entry->key);
    if (streak.keys.size() < kMostKeys) continue;
    throw pg::Failure(
        reject.sqlstate ? pg::SqlStateCode(*reject.sqlstate) : ERRCODE_DATA_EXCEPTION,
        "mapping \"" + *reject.mapping + "\" rejects every key, by rule \"" + reject.rule + "\"",
        std::to_string(kMostKeys) + " keys were rejected in a row. The last: " + reject.message,
        "Correct the mapping or its target, or leave such keys out by redis_migrate.skip_keys, and SELECT "
        "redis_migrate.start(" +
            pg::QuoteLiteral(migration) + ", live => true).");
  }
}

}  // namespace prm
