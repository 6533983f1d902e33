#include "store/batch.h"

namespace prm {

using source::EntryState;
using source::Interest;

KeySet KeysOf(const std::vector<const source::Entry *> &entries) {
  KeySet keys;
  for (const source::Entry *entry : entries) keys.emplace(entry->db, entry->key);
  return keys;
}

Interest PassFilter::Classify(int db, Bytes key) {
  if (stored_ != nullptr && !stored_->empty() && stored_->count({db, std::string(key)}) > 0)
    return Interest::kIgnore;
  Route route = routing_.Find(db, key, match_);
  if (level_ && routing_.LevelOf(route) != *level_) return Interest::kIgnore;
  return route.kind == Route::kDeclared || route.kind == Route::kNotSelected ? Interest::kNameOnly
                                                                             : Interest::kRead;
}

namespace {

void RejectKey(const source::Entry *entry, const Tally::Pattern &pattern, const std::string &rule,
               const std::string &message, Tally &tally) {
  tally.Count(entry, pattern, Outcome::kRejected, rule);
  tally.rejects.push_back({entry, pattern, std::nullopt, rule, std::nullopt, message, false});
}

}  // namespace

std::vector<const source::Entry *> ProcessEntries(Routing &routing, Archive *archive,
                                                  const std::vector<const source::Entry *> &entries,
                                                  std::optional<int> level, const KeySet &counted,
                                                  const PatternGroup::Options &options, Tally &tally) {
  std::vector<std::vector<BatchEntry>> grouped(routing.group_count());
  std::vector<const source::Entry *> archived;
  Match match;
  for (const source::Entry *entry : entries) {
    Route route = routing.Find(entry->db, entry->key, match);
    if (level && routing.LevelOf(route) != *level) continue;
    if (counted.empty() || counted.count({entry->db, entry->key}) == 0) ++tally.read[route.pattern];
    tally.bytes += entry->key.size() + entry->payload.size();
    if (route.kind == Route::kDeclared || route.kind == Route::kNotSelected) {
      tally.Count(entry, route.pattern, Outcome::kSkipped,
                  route.kind == Route::kDeclared ? "declared" : "not_selected");
    } else if (entry->state == EntryState::kVanished) {
      tally.Count(entry, route.pattern, Outcome::kVanished);
    } else if (entry->state == EntryState::kExpired) {
      tally.Count(entry, route.pattern, Outcome::kSkipped, "expired");
    } else if (entry->state == EntryState::kEmpty) {
      tally.Count(entry, route.pattern, Outcome::kSkipped, "empty");
    } else if (entry->state == EntryState::kTooLarge) {
      RejectKey(entry, route.pattern, "max_value_size",
                "the value takes " + std::to_string(entry->size) +
                    " bytes in Redis, more than pg_redis_migrate.max_value_size",
                tally);
    } else if (entry->state == EntryState::kChanging) {
      RejectKey(entry, route.pattern, "changed_while_read",
                "the key was written to each time that it was read in pieces", tally);
    } else if (entry->state == EntryState::kUnsupported) {
      RejectKey(entry, route.pattern, "unsupported_payload",
                "only DUMP can read a value of type " + entry->type_name + ", and it may not be used", tally);
    } else if (route.kind == Route::kMisfit) {
      RejectKey(entry, route.pattern, route.misfit,
                "the text of capture \"" + route.misfit + "\" is not of the type that pattern " +
                    *route.pattern + " gives it",
                tally);
    } else if (route.kind == Route::kMapped) {
      grouped[route.group].push_back({entry, match.values});
    } else if (archive == nullptr) {
      RejectKey(entry, std::nullopt, "unmapped", "no pattern of the migration owns the key", tally);
    } else {
      archived.push_back(entry);
    }
  }
  std::vector<const source::Entry *> left;
  auto leave = [&](const std::vector<const source::Entry *> &rest, const Tally::Pattern &pattern) {
    for (const source::Entry *entry : rest) {
      if (counted.count({entry->db, entry->key}) == 0 && --tally.read[pattern] == 0)
        tally.read.erase(pattern);
      tally.bytes -= entry->key.size() + entry->payload.size();
      left.push_back(entry);
    }
  };
  for (size_t group = 0; group < grouped.size(); ++group)
    leave(routing.group(group).Process(grouped[group], options, tally),
          routing.group(group).pattern().text());
  if (archive != nullptr) leave(archive->Store(archived, options, tally), std::nullopt);
  return left;
}

}  // namespace prm
