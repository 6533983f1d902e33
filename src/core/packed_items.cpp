#include "core/packed_items.h"

#include <algorithm>
#include <iterator>

#include "core/sort_by_hash.h"

namespace prm {

namespace {

void Put(uint64_t word, char*& to) {
  for (int i = 0; i < 8; ++i) to[i] = static_cast<char>(word >> (56 - 8 * i) & 0xff);
  to += 8;
}

uint64_t Word(const char* bytes) {
  uint64_t word = 0;
  for (int i = 0; i < 8; ++i) word = word << 8 | static_cast<unsigned char>(bytes[i]);
  return word;
}

}  // namespace

HashRange HashRange::Share(uint64_t index, uint64_t count) {
  uint64_t const size = UINT64_MAX / count;
  HashRange range;
  range.first = index * size;
  if (index + 1 < count) range.last = range.first + size - 1;
  return range;
}

std::string Pack(std::vector<PackedItem> items, Packing packing) {
  SortByHash(items, [](const PackedItem& item) { return item.hash; });
  std::string packed(items.size() * static_cast<size_t>(packing), '\0');
  char* to = packed.data();
  for (size_t i = 0; i < items.size(); ++i) {
    const PackedItem& item = items[i];
    if (i + 1 < items.size() && item.hash == items[i + 1].hash) continue;
    Put(item.hash.high, to);
    Put(item.hash.low, to);
    if (packing != Packing::kHashes) Put(item.image, to);
    if (packing == Packing::kChanges) Put(item.prior, to);
  }
  packed.resize(static_cast<size_t>(to - packed.data()));
  return packed;
}

bool Unpack(Bytes packed, Packing packing, std::vector<PackedItem>& items) {
  auto const size = static_cast<size_t>(packing);
  size_t const before = items.size();
  bool whole = packed.size() % size == 0;
  if (before == 0) items.reserve(packed.size() / size);
  for (size_t at = 0; whole && at < packed.size(); at += size) {
    const char* bytes = packed.data() + at;
    PackedItem item;
    item.hash.high = Word(bytes);
    item.hash.low = Word(bytes + 8);
    if (packing != Packing::kHashes) item.image = Word(bytes + 16);
    if (packing == Packing::kChanges) item.prior = Word(bytes + 24);
    whole = items.size() == before || items.back() < item;
    items.push_back(item);
  }
  if (!whole) items.resize(before);
  return whole;
}

std::vector<PackedItem> ApplyEvents(const std::vector<PackedItem>& entries, const LedgerEvent* begin,
                                    const LedgerEvent* end,
                                    const std::function<void(const LedgerEvent&, LedgerFinding)>& found) {
  std::vector<PackedItem> after;
  after.reserve(entries.size() + static_cast<size_t>(end - begin));
  auto entry = entries.begin();
  for (const LedgerEvent* event = begin; event != end;) {
    Hash128 const hash = event->item.hash;
    while (entry != entries.end() && entry->hash < hash) after.push_back(*entry++);
    bool lives = entry != entries.end() && entry->hash == hash;
    PackedItem row = lives ? *entry++ : PackedItem();
    for (; event != end && event->item.hash == hash; ++event) {
      if (lives && event->kind == LedgerEvent::kInserted) found(*event, LedgerFinding::kDeletedHere);
      bool const knows_both = lives && row.image != 0 && event->item.prior != 0;
      if (knows_both && event->item.prior != row.image) found(*event, LedgerFinding::kChangedHere);
      lives = event->kind == LedgerEvent::kRefreshed ? lives : event->kind != LedgerEvent::kRemoved;
      row = event->item;
    }
    row.prior = 0;
    if (lives) after.push_back(row);
  }
  after.insert(after.end(), entry, entries.end());
  return after;
}

std::vector<PackedItem> Without(const std::vector<PackedItem>& items, const std::vector<PackedItem>& others) {
  std::vector<PackedItem> rest;
  std::set_difference(items.begin(), items.end(), others.begin(), others.end(), std::back_inserter(rest));
  return rest;
}

}  // namespace prm
