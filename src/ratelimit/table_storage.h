// States of rate limits in tables: they are written in the caller's transaction and roll back with it; a
// changed row stays locked until the transaction ends.
#pragma once

#include "ratelimit/policy.h"

namespace prm::ratelimit {

struct TableKey {
  const Policy *policy;
  const RateLimit *limit;  // the policy's, or an override of it
  std::string key;
  bool simulated;  // asked for a time other than now
};

// The key as it is stored: text up to 512 bytes as it is, longer ones as "sha256:" and a digest, addresses as
// text.
std::string StoredKey(Bytes text, const pg::Network *address);

// The committed state of a key, without a lock; zero when there is none. *found says which.
RateState ReadState(const TableKey &key, bool *found);

// Decides on a key's state, given the latest version of its locked row: changes *state and returns whether to
// store it. Must not throw or call PostgreSQL.
using Step = bool (*)(void *context, RateState *state);

// Runs the step on the row of the key, and inserts a missing row. A step that refuses writes nothing and
// locks no row, unless the row changed at the last moment. Returns the last result of the step. Errors: those
// of INSERT and UPDATE.
bool ChangeState(const TableKey &key, Step step, void *context);

// Deletes the row; returns whether there was one.
bool DeleteState(const TableKey &key);

}  // namespace prm::ratelimit
