#include "store/shown_value.h"

#include "pg/memory.h"

namespace prm {

namespace {

constexpr size_t kShownBytes = 200;
constexpr size_t kShownBefore = 40;  // what differs

bool IsBinary(Oid type) { return type == BYTEAOID; }

Bytes BytesOf(Oid type, Datum value) {
  Oid const base = pg::Call([&] { return getBaseType(type); });
  if (IsBinary(base) || base == TEXTOID || base == VARCHAROID || base == BPCHAROID)
    return pg::DatumBytes(value);
  return pg::Call([&] {
    Oid output;
    bool is_varlena;
    getTypeOutputInfo(type, &output, &is_varlena);
    return Bytes(OidOutputFunctionCall(output, value));
  });
}

size_t Clip(Bytes text, size_t most, bool is_binary) {
  if (is_binary || most >= text.size()) return std::min(most, text.size());
  return pg::Call([&] {
    return static_cast<size_t>(
        pg_mbcliplen(text.data(), static_cast<int>(text.size()), static_cast<int>(most)));
  });
}

std::string Hex(Bytes bytes) {
  constexpr char kDigits[] = "0123456789abcdef";
  std::string hex = "\\x";
  for (char const byte : bytes) {
    hex += kDigits[static_cast<unsigned char>(byte) >> 4];
    hex += kDigits[static_cast<unsigned char>(byte) & 15];
  }
  return hex;
}

std::string Show(Bytes value, size_t difference, bool is_binary) {
  if (value.size() <= kShownBytes) return is_binary ? Hex(value) : std::string(value);
  size_t const wanted = difference > kShownBefore ? difference - kShownBefore : 0;
  size_t const begin = Clip(value, std::min(wanted, value.size()), is_binary);
  Bytes const rest = value.substr(begin);
  Bytes const part = rest.substr(0, Clip(rest, kShownBytes, is_binary));
  return (begin > 0 ? "..." : "") + (is_binary ? Hex(part) : std::string(part)) +
         (part.size() < rest.size() ? "..." : "") + " (from byte " + std::to_string(begin + 1) + " of " +
         std::to_string(value.size()) + ")";
}

}  // namespace

ShownPair ShowDifference(Oid type, std::optional<Datum> a, std::optional<Datum> b) {
  bool const is_binary = IsBinary(pg::Call([&] { return getBaseType(type); }));
  std::optional<Bytes> const first = a ? std::optional<Bytes>(BytesOf(type, *a)) : std::nullopt;
  std::optional<Bytes> const second = b ? std::optional<Bytes>(BytesOf(type, *b)) : std::nullopt;
  size_t difference = 0;
  if (first && second) {
    size_t const common = std::min(first->size(), second->size());
    difference = static_cast<size_t>(
        std::mismatch(first->begin(), first->begin() + static_cast<long>(common), second->begin()).first -
        first->begin());
  }
  ShownPair shown;
  if (first) shown.first = Show(*first, difference, is_binary);
  if (second) shown.second = Show(*second, difference, is_binary);
  return shown;
}

}  // namespace prm
