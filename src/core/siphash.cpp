#include "core/siphash.h"

#include <sys/random.h>

#include <chrono>

#include "core/sip_hasher.h"

namespace prm {

Hash128 SipHash128(const SipKey& key, Bytes bytes) {
  SipHasher hasher(key);
  hasher.Add(bytes);
  return hasher.Finish();
}

SipKey RandomSipKey() {
  SipKey key{};
  if (getrandom(key.data(), sizeof(key), GRND_NONBLOCK) != static_cast<ssize_t>(sizeof(key))) {
    // getrandom fails only while a machine is starting; an address and the time are then hard enough to
    // guess.
    key = {reinterpret_cast<uintptr_t>(&key),
           static_cast<uint64_t>(std::chrono::steady_clock::now().time_since_epoch().count())};
  }
  return key;
}

}  // namespace prm
