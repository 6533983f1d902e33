#include "redis/address_rule.h"

#include <arpa/inet.h>
#include <netinet/in.h>

#include <algorithm>
#include <charconv>
#include <cstring>

#include "core/bytes.h"
#include "core/printable.h"

namespace prm::redis {

namespace {

constexpr unsigned kMappedPrefix = 96;

AddressKind KindOfV4(const uint8_t* byte) {
  const unsigned first = byte[0];
  const unsigned second = byte[1];
  if (first == 127) return AddressKind::kLoopback;
  if (first == 0 || first >= 224) return AddressKind::kOther;
  if (first == 169 && second == 254) return AddressKind::kLinkLocal;
  const bool is_private = first == 10 || (first == 172 && (second & 0xf0) == 16) ||
                          (first == 192 && second == 168) || (first == 100 && (second & 0xc0) == 64) ||
                          (first == 198 && (second & 0xfe) == 18);
  return is_private ? AddressKind::kPrivate : AddressKind::kPublic;
}

const char* NameOf(AddressKind kind) {
  switch (kind) {
    case AddressKind::kLoopback:
      return "a loopback address";
    case AddressKind::kLinkLocal:
      return "a link-local address";
    case AddressKind::kPrivate:
      return "a private address";
    case AddressKind::kPublic:
      return "a public address";
    case AddressKind::kOther:
      break;
  }
  return "not the address of a host";
}

using Bits = std::array<uint8_t, 16>;

bool HaveCommonPrefix(const Bits& a, const Bits& b, unsigned prefix) {
  for (unsigned i = 0; i < prefix; ++i) {
    if (((a[i / 8] ^ b[i / 8]) >> (7 - i % 8) & 1) != 0) return false;
  }
  return true;
}

// An IPv4 address that NAT64 has put into IPv6 as it is mapped otherwise.
Bits WithoutNat64(const Bits& bits) {
  static constexpr Bits kNat64 = {0, 0x64, 0xff, 0x9b};
  if (!HaveCommonPrefix(bits, kNat64, kMappedPrefix)) return bits;
  Bits mapped{};
  mapped[10] = mapped[11] = 0xff;
  std::copy(bits.begin() + 12, bits.end(), mapped.begin() + 12);
  return mapped;
}

Bytes Trimmed(Bytes text) {
  const size_t begin = std::min(text.find_first_not_of(' '), text.size());
  return text.substr(begin, text.find_last_not_of(' ') + 1 - begin);
}

}  // namespace

AddressRule::Bits AddressRule::BitsOf(const SocketAddress& address) {
  Bits bits{};
  if (address.storage.ss_family == AF_INET6) {
    std::memcpy(bits.data(), &reinterpret_cast<const sockaddr_in6*>(&address.storage)->sin6_addr,
                bits.size());
  } else if (address.storage.ss_family == AF_INET) {
    bits[10] = bits[11] = 0xff;
    std::memcpy(&bits[12], &reinterpret_cast<const sockaddr_in*>(&address.storage)->sin_addr, 4);
  }
  return bits;
}

AddressKind KindOf(const SocketAddress& address) {
  const AddressRule::Bits bits = AddressRule::BitsOf(address);
  const auto begins_with = [&](std::initializer_list<uint8_t> bytes) {
    return std::equal(bytes.begin(), bytes.end(), bits.begin());
  };
  if (begins_with({0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff})) return KindOfV4(&bits[12]);
  if (begins_with({0, 0x64, 0xff, 0x9b, 0, 0, 0, 0, 0, 0, 0, 0})) return KindOfV4(&bits[12]);  // NAT64
  if (begins_with({0x20, 0x02})) return KindOfV4(&bits[2]);                                    // 6to4
  if (begins_with({0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1})) return AddressKind::kLoopback;
  if (begins_with({0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}) || bits[0] == 0xff) return AddressKind::kOther;
  if (bits[0] == 0xfe && (bits[1] & 0xc0) == 0x80) return AddressKind::kLinkLocal;
  if (bits[0] == 0xfe && (bits[1] & 0xc0) == 0xc0) return AddressKind::kPrivate;  // site-local (deprecated)
  return (bits[0] & 0xfe) == 0xfc ? AddressKind::kPrivate : AddressKind::kPublic;
}

Result<AddressRule> AddressRule::Parse(const std::string& text) {
  AddressRule rule;
  rule.is_set_ = true;
  for (Bytes rest = text;;) {
    const size_t comma = std::min(rest.find(','), rest.size());
    const Bytes item = Trimmed(rest.substr(0, comma));
    const size_t slash = std::min(item.find('/'), item.size());
    SocketAddress address{};
    Network network{};
    const std::string host(item.substr(0, slash));
    bool is_valid = true;
    if (item == "any") {
      rule.any_ = true;
    } else {
      const bool is_v4 =
          inet_pton(AF_INET, host.c_str(), &reinterpret_cast<sockaddr_in*>(&address.storage)->sin_addr) == 1;
      is_valid = is_v4 || inet_pton(AF_INET6, host.c_str(),
                                    &reinterpret_cast<sockaddr_in6*>(&address.storage)->sin6_addr) == 1;
      address.storage.ss_family = is_v4 ? AF_INET : AF_INET6;
      const unsigned added = is_v4 ? kMappedPrefix : 0;
      unsigned prefix = 128 - added;
      if (slash < item.size()) {
        const Bytes digits = item.substr(slash + 1);
        const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), prefix);
        is_valid =
            is_valid && error == std::errc() && end == digits.data() + digits.size() && prefix <= 128 - added;
      }
      network = {BitsOf(address), prefix + added};
      rule.networks_.push_back(network);
    }
    if (!is_valid) {
      return Error{ErrorCode::kInvalidArgument,
                   "\"" + Printable(item) + "\" is neither an address nor a network",
                   {},
                   "Write addresses and networks separated by commas, such as 10.0.0.0/8, fd00::/8, or any."};
    }
    if (comma == rest.size()) return rule;
    rest.remove_prefix(comma + 1);
  }
}

bool AddressRule::Allows(const SocketAddress& address, AddressKind named, bool is_verified) const {
  const AddressKind kind = KindOf(address);
  if (!is_set_) {
    return kind == named || (is_verified && (kind == AddressKind::kPrivate || kind == AddressKind::kPublic));
  }
  const Bits bits = BitsOf(address);
  return any_ || std::any_of(networks_.begin(), networks_.end(), [&](const Network& network) {
           // All that NAT64 translates is not all of IPv4, where a rule names it as a whole.
           const bool is_of_ipv4 = network.prefix > kMappedPrefix;
           return HaveCommonPrefix(bits, network.bits, network.prefix) ||
                  HaveCommonPrefix(WithoutNat64(bits), is_of_ipv4 ? WithoutNat64(network.bits) : network.bits,
                                   network.prefix);
         });
}

Error AddressRule::Refusal(const std::string& where, const SocketAddress& address, AddressKind named) {
  const std::string text = AddressText(address);
  return {
      ErrorCode::kPermissionDenied, "redirect to " + where + " was refused",
      text + " is " + NameOf(KindOf(address)) + ", and the server that names it was reached at " +
          NameOf(named) + ".",
      "If it is the right one, add its network to the server's option redirects_to: ALTER SERVER ... OPTIONS "
      "(ADD "
      "redirects_to '" +
          text + "')."};
}

}  // namespace prm::redis
