// Which of several processes applies the changes of a key.
#pragma once

#include "core/bytes.h"
#include "redis/cluster_slots.h"

namespace prm::stream {

// The keys whose hash slot leaves `number` when it is divided by `of`. Keys with one hash tag are in one
// share, and a key is in the same share in all databases.
struct KeyShare {
  int number = 0;
  int of = 1;

  bool is_first() const { return number == 0; }
  bool is_all() const { return of == 1; }
  // The number of the share that has a key.
  int NumberOf(Bytes key) const { return static_cast<int>(redis::KeySlot(key)) % of; }
  bool Has(Bytes key) const { return is_all() || NumberOf(key) == number; }
};

}  // namespace prm::stream
