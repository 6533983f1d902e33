#include "core/sip_hasher.h"

#include <algorithm>
#include <cstring>

namespace prm {

namespace {

constexpr size_t kWord = sizeof(uint64_t);

uint64_t Rotate(uint64_t x, int bits) { return (x << bits) | (x >> (64 - bits)); }

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

inline void SipHasher::State::Round() {
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

inline void SipHasher::State::Absorb(uint64_t word) {
  v3 ^= word;
  Round();
  Round();
  v0 ^= word;
}

inline uint64_t SipHasher::State::Squeeze() {
  for (int i = 0; i < 4; ++i) Round();
  return v0 ^ v1 ^ v2 ^ v3;
}

void SipHasher::Clear() {
  state_ = {key_[0] ^ 0x736f6d6570736575, key_[1] ^ 0x646f72616e646f6d ^ 0xee, key_[0] ^ 0x6c7967656e657261,
            key_[1] ^ 0x7465646279746573};
  length_ = 0;
}

void SipHasher::Add(Bytes bytes) {
  if (bytes.empty()) return;
  State state = state_;  // the compiler keeps it in registers
  const size_t rest = length_ % kWord;
  length_ += bytes.size();
  size_t at = 0;
  if (rest > 0) {
    at = std::min(kWord - rest, bytes.size());
    std::memcpy(rest_ + rest, bytes.data(), at);
    if (rest + at < kWord) return;
    state.Absorb(LoadLittleEndian(rest_, kWord));
  }
  for (; bytes.size() - at >= kWord; at += kWord) state.Absorb(LoadLittleEndian(bytes.data() + at, kWord));
  if (at < bytes.size()) std::memcpy(rest_, bytes.data() + at, bytes.size() - at);
  state_ = state;
}

Hash128 SipHasher::Finish() {
  State state = state_;
  state.Absorb(uint64_t{length_ & 0xff} << 56 | LoadLittleEndian(rest_, length_ % kWord));
  Hash128 hash;
  state.v2 ^= 0xee;
  hash.low = state.Squeeze();
  state.v1 ^= 0xdd;
  hash.high = state.Squeeze();
  Clear();
  return hash;
}

}  // namespace prm
