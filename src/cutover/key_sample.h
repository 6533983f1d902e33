// Compares some keys with their rows while writes to Redis are held back.
#pragma once

#include "core/key_id.h"
#include "cutover/masters.h"
#include "store/batch.h"

namespace prm {

class KeySample {
 public:
  // A sample of the keys of these patterns. Commits. Errors: those of Routing and BatchStore; 55000 if the
  // secret of a ledger is lost.
  KeySample(Migration migration, std::vector<std::string> patterns);

  // Chooses at most so many keys at random, as many of each master, with RANDOMKEY. Commits. Errors: those of
  // the connections.
  void Choose(Masters &masters, size_t most);

  // Adds the keys that live sync has changed since the last verification began. False: there are more than
  // `most`, or nobody knows; then it adds none. Commits.
  bool AddTouched(Masters &masters, size_t most);
  // Adds these keys, as far as they are of the patterns.
  void Add(Masters &masters, std::vector<KeyId> keys);
  // How many it has found, those that it has not added included; -1: nobody knows.
  int64 touched() const { return touched_; }

  // As Compare, but whatever is found: so that nothing has to be prepared any more while writes are held
  // back.
  void Prepare(Masters &masters);

  // Reads the keys and compares them; always of the same masters. Commits. Returns how many there were.
  // Errors: 55000 with the first differences; those of NamedKeys and of the mappings.
  int64 Compare(Masters &masters);

 private:
  int64 CompareAll(Masters &masters, bool must_be_equal);
  source::NamedKeys &ReaderOf(Masters &masters, size_t number);
  bool IsOfFamilies(int db, Bytes key, uint64 &route);

  Migration migration_;
  std::vector<std::string> patterns_;
  Routing routing_;
  BatchStore store_;
  PassFilter filter_;
  std::vector<std::set<KeyId>> keys_;  // of each master
  std::vector<std::unique_ptr<source::NamedKeys>> readers_;
  int64 touched_ = -1;
};

}  // namespace prm
