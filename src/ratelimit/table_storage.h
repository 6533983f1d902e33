// States of rate limits in tables: they are written in the caller's transaction, roll back with it, and a
// changed row stays locked until it ends.
#pragma once

#include "ratelimit/policy.h"

namespace prm::ratelimit {

struct TableKey {
  const Policy *policy;
  std::string key;
};

// The key as it is stored: text up to 512 bytes as it is, longer ones as "sha256:" and a digest, addresses as
// text.
std::string StoredKey(Bytes text, const Network *address);

// The committed state of a key, without a lock; zero when there is none. *found says which.
RateState ReadState(const TableKey &key, bool *found);

// What becomes of a key's state, asked with its row locked and its latest version at hand: returns whether
// *state, which it changes, is to be stored. Must not throw or call PostgreSQL.
using Step = bool (*)(void *context, RateState *state);

// Runs the step on the row of the key, which is inserted when it is missing. Rows that were refused by the
// step may stay locked when they changed at the last moment. Returns the step's last answer. `known` says
// whether the row was there a moment ago: a wrong guess costs a statement. Errors: those of INSERT and
// UPDATE.
bool ChangeState(const TableKey &key, bool known, Step step, void *context);

// Deletes the row; returns whether there was one.
bool DeleteState(const TableKey &key);

}  // namespace prm::ratelimit
