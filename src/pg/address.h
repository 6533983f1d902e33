// Client addresses as keys.
#pragma once

#include "core/bytes.h"
#include "pg/pg.h"

namespace prm::pg {

// An address or network in one form: an IPv4 address inside IPv6 (::ffff:a.b.c.d, or 64:ff9b::a.b.c.d as
// NAT64 makes it, RFC 6052) is that IPv4 address.
struct Network {
  uint8 family = 0;      // 4 or 6
  uint8 bits = 0;        // of the prefix
  uint8 bytes[16] = {};  // those behind the prefix are zero

  int max_bits() const { return family == 4 ? 32 : 128; }
  // Keeps at most the first `bits` bits.
  void Fold(int most_bits);
  bool Contains(const Network &other) const;
  // The whole struct, as a key.
  Bytes AsKey() const { return Bytes(reinterpret_cast<const char *>(this), sizeof *this); }
};
static_assert(sizeof(Network) == 18, "no padding: it is hashed");

// From a value of type inet or cidr.
Network NetworkOf(const inet *address);

}  // namespace prm::pg
