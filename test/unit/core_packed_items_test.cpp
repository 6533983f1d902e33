#include "core/packed_items.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <random>

#include "core/sort_by_hash.h"

namespace prm {

namespace {

using Items = std::vector<PackedItem>;

PackedItem Of(uint64_t high, uint64_t low = 0, uint64_t image = 0, uint64_t prior = 0) {
  PackedItem item;
  item.hash.high = high;
  item.hash.low = low;
  item.image = image;
  item.prior = prior;
  return item;
}

Items Unpacked(Bytes packed, Packing packing = Packing::kHashes) {
  Items items;
  EXPECT_TRUE(Unpack(packed, packing, items));
  return items;
}

TEST(PackedItems, AreSortedBigEndianAndWithoutRepeats) {
  std::string const packed = Pack({Of(1, 2), Of(0, 0x0102030405060708), Of(1, 2)}, Packing::kHashes);
  EXPECT_EQ(packed, std::string("\0\0\0\0\0\0\0\0\1\2\3\4\5\6\7\10\0\0\0\0\0\0\0\1\0\0\0\0\0\0\0\2", 32));
  EXPECT_EQ(Unpacked(packed), (Items{Of(0, 0x0102030405060708), Of(1, 2)}));
}

TEST(PackedItems, HaveTheFieldsOfTheirPacking) {
  Items const items = {Of(1, 2, 3, 4), Of(5, 6, 7, 8)};
  EXPECT_EQ(Unpacked(Pack(items, Packing::kHashes)), (Items{Of(1, 2), Of(5, 6)}));
  EXPECT_EQ(Pack(items, Packing::kEntries).size(), 48U);
  EXPECT_EQ(Unpacked(Pack(items, Packing::kEntries), Packing::kEntries), (Items{Of(1, 2, 3), Of(5, 6, 7)}));
  EXPECT_EQ(Unpacked(Pack(items, Packing::kChanges), Packing::kChanges), items);
}

TEST(PackedItems, TheLastOfTheSameHashIsPacked) {
  EXPECT_EQ(Unpacked(Pack({Of(1, 1, 8), Of(1, 1, 9)}, Packing::kEntries), Packing::kEntries),
            (Items{Of(1, 1, 9)}));
}

// Hashes that are spread evenly, are close together, fill their range to both ends, or are the same.
TEST(PackedItems, AreSortedByHashAndOtherwiseStayInOrder) {
  std::mt19937_64 random(20260101);
  for (const uint64_t width : {uint64_t{0}, uint64_t{1}, uint64_t{40}, uint64_t{1} << 40, UINT64_MAX}) {
    for (const size_t count : {0, 1, 2, 3, 1000}) {
      std::vector<PackedItem> items(count);
      for (PackedItem& item : items) {
        const uint64_t kind = random() % 8;
        item.hash.high = kind == 0 ? 0 : kind == 1 ? width : width == 0 ? 0 : random() % width;
        item.hash.low = random() % 3;
        item.image = static_cast<uint64_t>(&item - items.data());
      }
      std::vector<PackedItem> expected = items;
      std::stable_sort(expected.begin(), expected.end());
      SortByHash(items, [](const PackedItem& item) { return item.hash; });
      EXPECT_EQ(items, expected) << width << ", " << count;
    }
  }
}

TEST(PackedItems, DamagedOnesAreRefused) {
  Items items = {Of(9)};
  std::string packed = Pack({Of(1), Of(2)}, Packing::kHashes);
  EXPECT_FALSE(Unpack(packed.substr(0, 31), Packing::kHashes, items));
  EXPECT_FALSE(Unpack(packed, Packing::kEntries, items));
  EXPECT_FALSE(Unpack(packed.substr(16) + packed.substr(0, 16), Packing::kHashes, items));
  EXPECT_FALSE(Unpack(packed.substr(16) + packed.substr(16), Packing::kHashes, items));
  EXPECT_EQ(items, (Items{Of(9)}));
  EXPECT_TRUE(Unpacked("").empty());
}

TEST(PackedItems, RangesCoverEachHashOnce) {
  for (uint64_t count : {1, 2, 3, 7, 1000}) {
    EXPECT_EQ(HashRange::Share(0, count).first, 0U);
    EXPECT_EQ(HashRange::Share(count - 1, count).last, UINT64_MAX);
    for (uint64_t i = 1; i < count; ++i)
      EXPECT_EQ(HashRange::Share(i - 1, count).last + 1, HashRange::Share(i, count).first);
  }
}

// The entries after events, and the findings: C (changed) and D (deleted) with the number of the batch.
struct After {
  Items entries;
  std::string found;
};

After Apply(const Items& entries, std::vector<LedgerEvent> events) {
  std::sort(events.begin(), events.end(), [](const LedgerEvent& a, const LedgerEvent& b) {
    return a.item.hash == b.item.hash ? a.batch < b.batch : a.item.hash < b.item.hash;
  });
  After after;
  after.entries = ApplyEvents(entries, events.data(), events.data() + events.size(),
                              [&](const LedgerEvent& event, LedgerFinding finding) {
                                after.found += finding == LedgerFinding::kChangedHere ? 'C' : 'D';
                                after.found += std::to_string(event.batch);
                              });
  return after;
}

TEST(LedgerEvents, TheNewestCounts) {
  After const after = Apply({Of(1, 0, 5), Of(4, 0, 6)}, {{Of(3, 0, 7), 1, LedgerEvent::kInserted},
                                                         {Of(1), 1, LedgerEvent::kRemoved},
                                                         {Of(3), 2, LedgerEvent::kRemoved},
                                                         {Of(1, 0, 8), 3, LedgerEvent::kInserted},
                                                         {Of(2), 3, LedgerEvent::kRemoved}});
  EXPECT_EQ(after.entries, (Items{Of(1, 0, 8), Of(4, 0, 6)}));
  EXPECT_EQ(after.found, "");
}

TEST(LedgerEvents, ALivingEntryWithoutItsRowWasDeletedHere) {
  After const after = Apply(
      {Of(1, 0, 5)}, {{Of(1, 0, 6), 3, LedgerEvent::kInserted}, {Of(2, 0, 6), 3, LedgerEvent::kInserted}});
  EXPECT_EQ(after.entries, (Items{Of(1, 0, 6), Of(2, 0, 6)}));
  EXPECT_EQ(after.found, "D3");
}

TEST(LedgerEvents, AnotherImageThanTheStoredOneWasChangedHere) {
  After const after =
      Apply({Of(1, 0, 5), Of(2, 0, 5), Of(3), Of(4, 0, 5)}, {{Of(1, 0, 7, 6), 1, LedgerEvent::kTaken},
                                                             {Of(2, 0, 7, 5), 1, LedgerEvent::kTaken},
                                                             {Of(3, 0, 7, 6), 1, LedgerEvent::kTaken},
                                                             {Of(4, 0, 7, 0), 1, LedgerEvent::kTaken},
                                                             {Of(9, 0, 7, 6), 1, LedgerEvent::kTaken}});
  EXPECT_EQ(after.entries, (Items{Of(1, 0, 7), Of(2, 0, 7), Of(3, 0, 7), Of(4, 0, 7), Of(9, 0, 7)}));
  EXPECT_EQ(after.found, "C1");
}

TEST(LedgerEvents, ARefreshedRowIsNobodysUnlessItWasTheMappings) {
  After const after = Apply({Of(1, 0, 5)}, {{Of(1, 0, 7, 5), 1, LedgerEvent::kRefreshed},
                                            {Of(2, 0, 7, 5), 1, LedgerEvent::kRefreshed}});
  EXPECT_EQ(after.entries, (Items{Of(1, 0, 7)}));
  EXPECT_EQ(after.found, "");
}

// Compares with a map, over many events in batches.
TEST(LedgerEvents, MergeAsInAMap) {
  uint64_t random = 1;
  std::map<uint64_t, uint64_t> expected;
  Items merged;
  for (uint32_t batch = 0; batch < 50; ++batch) {
    std::vector<LedgerEvent> events;
    for (uint32_t i = 0; i < 100; ++i) {
      random = random * 6364136223846793005 + 1442695040888963407;
      uint64_t const key = random >> 56;
      auto const kind = static_cast<LedgerEvent::Kind>(random >> 40 & 3);
      uint64_t const image = random >> 20 & 0xff;
      events.push_back({Of(key, 0, image), i, kind});
      if (kind == LedgerEvent::kRemoved)
        expected.erase(key);
      else if (kind != LedgerEvent::kRefreshed || expected.count(key) > 0)
        expected[key] = image;
    }
    merged = Apply(merged, events).entries;
  }
  Items living;
  for (const auto& [key, image] : expected) living.push_back(Of(key, 0, image));
  EXPECT_EQ(merged, living);
}

TEST(PackedItems, DifferencesLeaveWhatTheOtherLacks) {
  EXPECT_EQ(Without({Of(1), Of(2, 0, 5), Of(3)}, {Of(0), Of(2), Of(4)}), (Items{Of(1), Of(3)}));
  EXPECT_TRUE(Without({Of(1)}, {Of(1)}).empty());
}

}  // namespace
}  // namespace prm
