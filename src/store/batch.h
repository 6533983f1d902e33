// Stores the entries of a batch where they belong, and counts every one of them.
#pragma once

#include "mapping/routing.h"
#include "store/archive.h"
#include "store/pattern_group.h"

namespace prm {

using KeySet = std::set<std::pair<int, std::string>>;  // database and key

KeySet KeysOf(const std::vector<const source::Entry *> &entries);

// Decides by name what a pass has to read.
class PassFilter : public source::KeyFilter {
 public:
  // level: of the pass; nothing: everything in one pass.
  // stored: keys that are done already, though the source may return them again.
  // visit_other: told of the keys of other levels, and their levels.
  PassFilter(const Routing &routing, std::optional<int> level, const KeySet *stored = nullptr,
             std::function<void(int level, int db, Bytes key)> visit_other = {})
      : routing_(routing), level_(level), stored_(stored), visit_other_(std::move(visit_other)) {}
  // Routes the key, for BatchStore::Process.
  source::KeyDecision Classify(int db, Bytes key) override;

 private:
  const Routing &routing_;
  std::optional<int> level_;
  const KeySet *stored_;
  std::function<void(int, int, Bytes)> visit_other_;
  Match match_;
};

// The destinations for the entries of a migration: a group of mappings for each pattern, and the archive.
class BatchStore {
 public:
  // routing must outlive it.
  BatchStore(const Migration &migration, const Routing &routing);

  Archive &archive() { return archive_; }

  // Maps and stores the entries that belong to the level, in the current transaction. They carry the routes
  // of PassFilter. Keys that no pattern owns go to the archive, or are rejected where the migration wants
  // none. Returns those that are left for another transaction, neither stored nor counted. Errors: those of
  // PatternGroup::Process. counted: keys that have been counted as read before, and without an outcome.
  std::vector<const source::Entry *> Process(const std::vector<const source::Entry *> &entries, int level,
                                             const KeySet &counted, const BatchOptions &options,
                                             Tally &tally);

  // Takes what keys that are gone have in the targets and in the archive, and counts them as vanished, in the
  // current transaction. Only names and routes of the entries are looked at; they are plain. Returns those
  // whose rows are still referenced: neither deleted nor counted. Errors: those of PatternGroup::Delete.
  std::vector<const source::Entry *> Delete(const std::vector<const source::Entry *> &entries,
                                            const BatchOptions &options, Tally &tally);

  // Finds out by PatternGroup::TakesElements which changes of elements can be stored.
  void FindElementTypes();
  // Whether those can of keys with this route and values of that type. False before FindElementTypes.
  bool TakesElements(uint64_t route, rdb::ValueType type) const;
  // Whether those of some type can, so that rows show nothing of a key but its elements.
  bool TakesOnlyElements(uint64_t route) const;
  // Whether there are such keys.
  bool TakesAnyElements() const;
  // From now on they cannot: keys with this route are to be read again.
  void LeaveElements(uint64_t route);

  // As PatternGroup::Forget.
  void Forget();

 private:
  // Whether each pattern's family belongs to PostgreSQL. Nothing is then stored, deleted or compared.
  std::vector<bool> FindOwned(const BatchOptions &options) const;

  const std::string migration_;
  const Routing &routing_;
  std::vector<PatternGroup> groups_;                     // by the number of their pattern
  std::vector<std::set<rdb::ValueType>> element_types_;  // of each, see TakesElements
  std::vector<Tally::Pattern> names_;  // of the patterns, and after them the group for keys that none owns
  Archive archive_;
  bool archives_unmapped_;
};

}  // namespace prm
