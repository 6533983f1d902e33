#include "core/recent_names.h"

#include <utility>

namespace prm {

Hash128 RecentNames::Look(Bytes name) const {
  const Hash128 hash = SipHash128(key_, name);
  younger_.Look(hash);
  older_.Look(hash);
  return hash;
}

bool RecentNames::Insert(const Hash128& hash) {
  const bool known = older_.Contains(hash);
  if (!younger_.Insert(hash)) return false;
  if (younger_.size() >= generation_) {
    std::swap(younger_, older_);
    younger_.Clear();
  }
  return !known;
}

void RecentNames::Clear() {
  younger_ = HashSet();
  older_ = HashSet();
}

}  // namespace prm
