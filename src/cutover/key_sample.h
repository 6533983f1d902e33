// Compares some keys with their rows while writes to Redis are held back.
#pragma once

#include "core/key_id.h"
#include "cutover/masters.h"
#include "store/batch.h"

namespace prm {

class KeySample {
 public:
  // Of the mappings of these patterns. Commits. Errors: those of Routing and BatchStore; 55000 if the secret
  // of a ledger is lost.
  KeySample(Migration migration, std::vector<std::string> patterns);

  // Chooses at most so many keys at random, as many of each master, with RANDOMKEY. Commits. Errors: those of
  // the connections.
  void Choose(Masters &masters, size_t most);

  // Reads the keys and compares them. Commits. Returns how many there were. Errors: 55000 with the first
  // differences; those of NamedKeys and of the mappings.
  int64 Compare(Masters &masters);

 private:
  bool IsOfFamilies(int db, Bytes key, uint64 &route);

  Migration migration_;
  std::vector<std::string> patterns_;
  Routing routing_;
  BatchStore store_;
  PassFilter filter_;
  std::vector<std::set<KeyId>> keys_;  // of each master
};

}  // namespace prm
