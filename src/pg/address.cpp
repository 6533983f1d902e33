#include "pg/address.h"

namespace prm::pg {

void Network::Fold(int most_bits) {
  bits = static_cast<uint8>(std::min<int>(bits, most_bits));
  for (int i = 0; i < 16; i++) {
    const int kept = std::clamp(bits - 8 * i, 0, 8);
    bytes[i] = static_cast<uint8>(bytes[i] & (0xff00 >> kept));
  }
}

bool Network::Contains(const Network &other) const {
  if (family != other.family || bits > other.bits) return false;
  Network folded = other;
  folded.Fold(bits);
  return memcmp(bytes, folded.bytes, sizeof bytes) == 0;
}

Network NetworkOf(const inet *address) {
  // IPv4-mapped ::ffff:0:0/96, and 64:ff9b::/96 of NAT64, through which clients of an IPv6-only network come.
  static constexpr uint8 kMapped[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};
  static constexpr uint8 kNat64[12] = {0, 0x64, 0xff, 0x9b};
  const auto *value = reinterpret_cast<const inet_struct *>(VARDATA_ANY(address));
  Network network;
  network.bits = value->bits;
  if (value->family == PGSQL_AF_INET) {
    network.family = 4;
    memcpy(network.bytes, value->ipaddr, 4);
  } else if (value->bits >= 96 && (memcmp(value->ipaddr, kMapped, sizeof kMapped) == 0 ||
                                   memcmp(value->ipaddr, kNat64, sizeof kNat64) == 0)) {
    network.family = 4;
    network.bits = static_cast<uint8>(value->bits - 96);
    memcpy(network.bytes, value->ipaddr + 12, 4);
  } else {
    network.family = 6;
    memcpy(network.bytes, value->ipaddr, 16);
  }
  network.Fold(network.bits);
  return network;
}

}  // namespace prm::pg
