// States of rate limits in tables: they are written in the caller's transaction, roll back with it, and a
// changed row stays locked until it ends.
#pragma once

#include "ratelimit/policy.h"

namespace prm::ratelimit {

struct TableKey {
  const Policy *policy;
  const RateLimit *limit;  // the policy's, or an override of it
  std::string key;
  bool simulated;  // asked at another time than the clock's
};

// The key as it is stored: text up to 512 bytes as it is, longer ones as "sha256:" and a digest, addresses as
// text.
std::string StoredKey(Bytes text, const pg::Network *address);

// The committed state of a key, without a lock; zero when there is none. *found says which.
RateState ReadState(const TableKey &key, bool *found);

// Decides on a key's state, with its row locked and its latest version at hand: returns whether
// *state, which it changes, is to be stored. Must not throw or call PostgreSQL.
using Step = bool (*)(void *context, RateState *state);

// Runs the step on the row of the key, which is inserted when it is missing. Nothing is written and no row is
// locked for a step that refuses, unless the row changed at the last moment. Returns the step's last answer.
// Errors: those of INSERT and UPDATE.
bool ChangeState(const TableKey &key, Step step, void *context);

// Deletes the row; returns whether there was one.
bool DeleteState(const TableKey &key);

}  // namespace prm::ratelimit
