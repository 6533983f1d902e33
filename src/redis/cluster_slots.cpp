#include "redis/cluster_slots.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cstdint>
#include <utility>

#include "core/printable.h"

namespace prm::redis {

namespace {

constexpr std::array<uint16_t, 256> MakeCrcTable() {
  std::array<uint16_t, 256> table{};
  for (unsigned byte = 0; byte < 256; ++byte) {
    unsigned crc = byte << 8;
    for (int bit = 0; bit < 8; ++bit) crc = (crc & 0x8000) != 0 ? (crc << 1) ^ 0x1021 : crc << 1;
    table[byte] = static_cast<uint16_t>(crc);
  }
  return table;
}

constexpr std::array<uint16_t, 256> kCrcTable = MakeCrcTable();

bool ParseSlot(Bytes text, size_t& slot) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), slot);
  return error == std::errc() && end == text.data() + text.size() && slot < kClusterSlots;
}

}  // namespace

size_t KeySlot(Bytes key) {
  if (const size_t open = key.find('{'); open != Bytes::npos) {
    const size_t close = key.find('}', open + 1);
    if (close != Bytes::npos && close > open + 1) key = key.substr(open + 1, close - open - 1);
  }
  unsigned crc = 0;
  for (const char c : key) {
    crc = ((crc << 8) & 0xffff) ^ kCrcTable[(crc >> 8) ^ static_cast<unsigned char>(c)];
  }
  return crc % kClusterSlots;
}

std::vector<std::string> SlotTags() {
  std::vector<std::string> tags(kClusterSlots);
  size_t left = kClusterSlots;
  for (size_t number = 0; left > 0; ++number) {
    std::string digits = std::to_string(number);
    std::string& tag = tags[KeySlot(digits)];
    if (!tag.empty()) continue;
    tag = std::move(digits);
    --left;
  }
  return tags;
}

std::string SlotsToText(const Slots& slots) {
  std::string text;
  for (size_t slot = 0; slot < kClusterSlots; ++slot) {
    if (!slots[slot]) continue;
    const size_t first = slot;
    while (slot + 1 < kClusterSlots && slots[slot + 1]) ++slot;
    text +=
        (text.empty() ? "" : ",") + std::to_string(first) + (slot > first ? "-" + std::to_string(slot) : "");
  }
  return text.empty() ? "-" : text;
}

Result<Slots> SlotsFromText(Bytes text) {
  Slots slots;
  if (text == "-") return slots;
  for (Bytes rest = text;;) {
    const size_t comma = std::min(rest.find(','), rest.size());
    const Bytes range = rest.substr(0, comma);
    const size_t dash = std::min(range.find('-'), range.size());
    size_t first = 0;
    size_t last = 0;
    if (!ParseSlot(range.substr(0, dash), first) ||
        !ParseSlot(dash == range.size() ? range : range.substr(dash + 1), last) || first > last) {
      return Error{ErrorCode::kInvalidArgument, "invalid slots \"" + Printable(text) + "\"", {}, {}};
    }
    for (size_t slot = first; slot <= last; ++slot) slots.set(slot);
    if (comma == rest.size()) return slots;
    rest.remove_prefix(comma + 1);
  }
}

}  // namespace prm::redis
