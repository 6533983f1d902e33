#include "core/siphash.h"

#include <sys/random.h>

#include <chrono>
#include <cstring>

namespace prm {

namespace {

struct State {
  uint64_t v0, v1, v2, v3;

  static uint64_t Rotate(uint64_t x, int bits) { return (x << bits) | (x >> (64 - bits)); }

  void Round() {
    v0 += v1;
    v1 = Rotate(v1, 13) ^ v0;
    v0 = Rotate(v0, 32);
    v2 += v3;
    v3 = Rotate(v3, 16) ^ v2;
    v0 += v3;
    v3 = Rotate(v3, 21) ^ v0;
    v2 += v1;
    v1 = Rotate(v1, 17) ^ v2;
    v2 = Rotate(v2, 32);
  }

  void Absorb(uint64_t word) {
    v3 ^= word;
    Round();
    Round();
    v0 ^= word;
  }

  uint64_t Squeeze() {
    for (int i = 0; i < 4; ++i) Round();
    return v0 ^ v1 ^ v2 ^ v3;
  }
};

uint64_t LoadLittleEndian(const char* bytes, size_t count) {
  uint64_t word = 0;
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
  std::memcpy(&word, bytes, count);
#else
  for (size_t i = 0; i < count; ++i) word |= uint64_t{static_cast<unsigned char>(bytes[i])} << (8 * i);
#endif
  return word;
}

}  // namespace

Hash128 SipHash128(const SipKey& key, Bytes bytes) {
  State state{key[0] ^ 0x736f6d6570736575, key[1] ^ 0x646f72616e646f6d ^ 0xee, key[0] ^ 0x6c7967656e657261,
              key[1] ^ 0x7465646279746573};
  size_t offset = 0;
  for (; bytes.size() - offset >= 8; offset += 8) state.Absorb(LoadLittleEndian(bytes.data() + offset, 8));
  const uint64_t length = uint64_t{bytes.size() & 0xff} << 56;
  state.Absorb(length | LoadLittleEndian(bytes.data() + offset, bytes.size() - offset));
  Hash128 hash;
  state.v2 ^= 0xee;
  hash.low = state.Squeeze();
  state.v1 ^= 0xdd;
  hash.high = state.Squeeze();
  return hash;
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
