#include "source/cursor_share.h"

#include <charconv>

namespace prm::source {

namespace {

uint64_t Reversed(uint64_t bits) {
  uint64_t reversed = 0;
  for (int i = 0; i < 64; ++i, bits >>= 1) reversed = reversed << 1 | (bits & 1);
  return reversed;
}

}  // namespace

std::optional<uint64_t> ScanOrder(Bytes cursor) {
  uint64_t number = 0;
  const auto [end, error] = std::from_chars(cursor.data(), cursor.data() + cursor.size(), number);
  if (error != std::errc() || end != cursor.data() + cursor.size()) return {};
  return Reversed(number);
}

std::string CursorShare::Start() const {
  return bits == 0 ? "0" : std::to_string(Reversed(number << (64 - bits)));
}

bool CursorShare::GoesOnAt(Bytes cursor) const {
  if (cursor == "0") return false;
  if (bits == 0) return true;
  const std::optional<uint64_t> order = ScanOrder(cursor);
  return order && *order >> (64 - bits) == number;
}

}  // namespace prm::source
