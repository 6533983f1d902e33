#include "store/batch.h"

#include "mapping/family_state.h"

namespace prm {

using source::EntryState;
using source::Interest;
using source::KeyDecision;

KeySet KeysOf(const std::vector<const source::Entry *> &entries) {
  KeySet keys;
  for (const source::Entry *entry : entries) keys.emplace(entry->db, entry->key);
  return keys;
}

KeyDecision PassFilter::Classify(int db, Bytes key) {
  if (stored_ != nullptr && !stored_->empty() && stored_->count({db, std::string(key)}) > 0) return {};
  Route const route = routing_.Find(db, key, match_);
  if (int const level = routing_.LevelOf(route); level_ && level != *level_) {
    if (visit_other_) visit_other_(level, db, key);
    return {};
  }
  bool const passed_over = route.kind == Route::kDeclared || route.kind == Route::kNotSelected;
  return {passed_over ? Interest::kNameOnly : Interest::kRead, route.ToNumber()};
}

namespace {

void RejectKey(const source::Entry *entry, const Tally::Pattern &pattern, const std::string &rule,
               const std::string &message, Tally &tally) {
  tally.Count(entry, pattern, Outcome::kRejected, rule);
  tally.rejects.push_back({entry, pattern, std::nullopt, rule, std::nullopt, message, false});
}

}  // namespace

BatchStore::BatchStore(const Migration &migration, const Routing &routing)
    : migration_(migration.name),
      routing_(routing),
      archive_(migration.name),
      archives_unmapped_(migration.unmapped != "reject") {
  for (size_t pattern = 0; pattern < routing.patterns().size(); ++pattern) {
    groups_.emplace_back(routing.patterns()[pattern], routing.MappingsOf(pattern), false);
    names_.emplace_back(routing.patterns()[pattern].text());
  }
  names_.emplace_back();
}

std::vector<bool> BatchStore::FindOwned(const BatchOptions &options) const {
  std::vector<bool> owned(groups_.size() + 1, false);
  if (options.takes_owned) return owned;
  std::set<std::string> const patterns = LockOwnedFamilies(migration_);
  for (size_t group = 0; !patterns.empty() && group < groups_.size(); ++group)
    owned[group] = patterns.count(*names_[group]) > 0;
  return owned;
}

void BatchStore::FindElementTypes() {
  element_types_.assign(groups_.size(), {});
  for (size_t group = 0; group < groups_.size(); ++group)
    for (rdb::ValueType const type : {rdb::ValueType::kHash, rdb::ValueType::kSet, rdb::ValueType::kZset,
                                      rdb::ValueType::kStream, rdb::ValueType::kList})
      if (groups_[group].TakesElements(type)) element_types_[group].insert(type);
}

bool BatchStore::TakesElements(uint64_t route, rdb::ValueType type) const {
  Route const found = Route::FromNumber(route);
  return found.kind == Route::kMapped && *found.pattern < element_types_.size() &&
         element_types_[*found.pattern].count(type) > 0;
}

bool BatchStore::TakesOnlyElements(uint64_t route) const {
  Route const found = Route::FromNumber(route);
  return found.kind == Route::kMapped && *found.pattern < element_types_.size() &&
         !element_types_[*found.pattern].empty();
}

bool BatchStore::TakesAnyElements() const {
  return std::any_of(element_types_.begin(), element_types_.end(),
                     [](const std::set<rdb::ValueType> &types) { return !types.empty(); });
}

void BatchStore::LeaveElements(uint64_t route) {
  element_types_[Route::FromNumber(route).pattern.value()].clear();
}

void BatchStore::Forget() {
  for (PatternGroup &group : groups_) group.Forget();
  archive_.ForgetPrepared();
}

std::vector<const source::Entry *> BatchStore::Delete(const std::vector<const source::Entry *> &entries,
                                                      const BatchOptions &options, Tally &tally) {
  std::vector<std::vector<const source::Entry *>> grouped(groups_.size());
  std::vector<const source::Entry *> archived;
  std::vector<int64> read(names_.size());
  std::vector<bool> const owned = FindOwned(options);
  // Keys whose rows others refer to go last.
  std::multimap<int, size_t, std::greater<>> by_level;
  for (const source::Entry *entry : entries) {
    Route const route = Route::FromNumber(entry->route);
    size_t const name = route.pattern.value_or(groups_.size());
    ++read[name];
    if (route.kind == Route::kMapped && owned[name]) {
      tally.Count(entry, names_[name], Outcome::kSkipped, "owned");
      if (options.late != nullptr) options.late->push_back({entry, *names_[name], true});
    } else if (route.kind == Route::kMapped) {
      if (grouped[*route.pattern].empty()) by_level.emplace(routing_.LevelOf(route), *route.pattern);
      grouped[*route.pattern].push_back(entry);
    } else if (route.kind == Route::kUnmapped) {
      archived.push_back(entry);
    } else {
      tally.Count(entry, names_[name], Outcome::kVanished, "deleted");
    }
  }
  std::vector<const source::Entry *> referenced;
  for (const auto &[level, group] : by_level) {
    for (const source::Entry *entry : groups_[group].Delete(grouped[group], options, tally)) {
      referenced.push_back(entry);
      --read[group];
    }
  }
  archive_.Delete(archived);
  tally.Count(archived, std::nullopt, Outcome::kVanished, "deleted");
  for (size_t name = 0; name < names_.size(); ++name)
    if (read[name] > 0) tally.read[names_[name]] += read[name];
  return referenced;
}

std::vector<const source::Entry *> BatchStore::Process(const std::vector<const source::Entry *> &entries,
                                                       int level, const KeySet &counted,
                                                       const BatchOptions &options, Tally &tally) {
  std::vector<std::vector<const source::Entry *>> grouped(groups_.size());
  std::vector<const source::Entry *> archived;
  std::vector<int64> read(names_.size());
  std::vector<bool> const owned = FindOwned(options);
  for (const source::Entry *entry : entries) {
    Route const route = Route::FromNumber(entry->route);
    if (routing_.LevelOf(route) != level) continue;
    size_t const name = route.pattern.value_or(groups_.size());
    const Tally::Pattern &pattern = names_[name];
    if (counted.empty() || counted.count({entry->db, entry->key}) == 0) ++read[name];
    tally.bytes += entry->key.size() + source::PayloadSize(*entry);
    if (route.kind == Route::kDeclared || route.kind == Route::kNotSelected) {
      tally.Count(entry, pattern, Outcome::kSkipped,
                  route.kind == Route::kDeclared ? "declared" : "not_selected");
    } else if (owned[name]) {
      tally.Count(entry, pattern, Outcome::kSkipped, "owned");
      if (options.late != nullptr) options.late->push_back({entry, *pattern, false});
    } else if (entry->state == EntryState::kVanished) {
      tally.Count(entry, pattern, Outcome::kVanished);
    } else if (entry->state == EntryState::kExpired) {
      tally.Count(entry, pattern, Outcome::kSkipped, "expired");
    } else if (entry->state == EntryState::kEmpty) {
      tally.Count(entry, pattern, Outcome::kSkipped, "empty");
    } else if (entry->state == EntryState::kTooLarge) {
      RejectKey(entry, pattern, "max_value_size",
                "the value takes " + std::to_string(entry->size) +
                    " bytes in Redis, more than pg_redis_migrate.max_value_size",
                tally);
    } else if (entry->state == EntryState::kChanging) {
      RejectKey(entry, pattern, "changed_while_read",
                "the key was written to each time that it was read in pieces", tally);
    } else if (entry->state == EntryState::kUnsupported) {
      RejectKey(entry, pattern, "unsupported_payload",
                "only DUMP can read a value of type " + entry->type_name + ", and the user may not run it",
                tally);
    } else if (route.kind == Route::kMisfit) {
      std::string const &capture = routing_.patterns()[*route.pattern].captures()[route.misfit].name;
      RejectKey(
          entry, pattern, capture,
          "the text of capture \"" + capture + "\" is not of the type that pattern " + *pattern + " gives it",
          tally);
    } else if (route.kind == Route::kMapped) {
      grouped[*route.pattern].push_back(entry);
    } else if (!archives_unmapped_) {
      RejectKey(entry, std::nullopt, "unmapped", "no pattern of the migration owns the key", tally);
    } else {
      archived.push_back(entry);
    }
  }
  for (size_t name = 0; name < names_.size(); ++name)
    if (read[name] > 0) tally.read[names_[name]] += read[name];
  std::vector<const source::Entry *> left;
  auto leave = [&](const std::vector<const source::Entry *> &rest, const Tally::Pattern &pattern) {
    for (const source::Entry *entry : rest) {
      if (counted.count({entry->db, entry->key}) == 0 && --tally.read[pattern] == 0)
        tally.read.erase(pattern);
      tally.bytes -= entry->key.size() + source::PayloadSize(*entry);
      left.push_back(entry);
    }
  };
  for (size_t group = 0; group < grouped.size(); ++group)
    leave(groups_[group].Process(grouped[group], options, tally), names_[group]);
  leave(archive_.Store(archived, options, tally), std::nullopt);
  return left;
}

}  // namespace prm
