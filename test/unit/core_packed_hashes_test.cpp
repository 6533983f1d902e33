#include "core/packed_hashes.h"

#include <gtest/gtest.h>

#include <map>

namespace prm {
namespace {

Hash128 Of(uint64_t high, uint64_t low = 0) {
  Hash128 hash;
  hash.high = high;
  hash.low = low;
  return hash;
}

std::vector<Hash128> Unpacked(Bytes packed, const HashRange& range = {}) {
  std::vector<Hash128> hashes;
  UnpackHashes(packed, range, hashes);
  return hashes;
}

TEST(PackedHashes, AreSortedBigEndianAndWithoutRepeats) {
  std::string const packed = PackHashes({Of(1, 2), Of(0, 0x0102030405060708), Of(1, 2)});
  EXPECT_EQ(packed, std::string("\0\0\0\0\0\0\0\0\1\2\3\4\5\6\7\10\0\0\0\0\0\0\0\1\0\0\0\0\0\0\0\2", 32));
  EXPECT_EQ(Unpacked(packed), (std::vector<Hash128>{Of(0, 0x0102030405060708), Of(1, 2)}));
}

TEST(PackedHashes, EmptyAndTruncatedSetsHoldWhatIsWhole) {
  EXPECT_TRUE(PackHashes({}).empty());
  EXPECT_TRUE(Unpacked("").empty());
  EXPECT_FALSE(PackedHashesContain("", Of(0)));
  std::string packed = PackHashes({Of(1), Of(2)});
  packed.pop_back();
  EXPECT_EQ(Unpacked(packed), (std::vector<Hash128>{Of(1)}));
  EXPECT_FALSE(PackedHashesContain(packed, Of(2)));
}

TEST(PackedHashes, AreFoundByHighAndLowWord) {
  std::string const packed = PackHashes({Of(1, 5), Of(1, 7), Of(UINT64_MAX, UINT64_MAX)});
  EXPECT_TRUE(PackedHashesContain(packed, Of(1, 5)));
  EXPECT_TRUE(PackedHashesContain(packed, Of(1, 7)));
  EXPECT_TRUE(PackedHashesContain(packed, Of(UINT64_MAX, UINT64_MAX)));
  EXPECT_FALSE(PackedHashesContain(packed, Of(1, 6)));
  EXPECT_FALSE(PackedHashesContain(packed, Of(0, 5)));
  EXPECT_FALSE(PackedHashesContain(packed, Of(2, 5)));
}

TEST(PackedHashes, RangesCoverEachHashOnce) {
  for (uint64_t count : {1, 2, 3, 7, 1000}) {
    EXPECT_EQ(HashRange::Share(0, count).first, 0U);
    EXPECT_EQ(HashRange::Share(count - 1, count).last, UINT64_MAX);
    for (uint64_t i = 1; i < count; ++i)
      EXPECT_EQ(HashRange::Share(i - 1, count).last + 1, HashRange::Share(i, count).first);
  }
  std::string const packed = PackHashes({Of(0), Of(9, 1), Of(10), Of(10, 5), Of(11), Of(UINT64_MAX)});
  HashRange range;
  range.first = 10;
  range.last = 10;
  EXPECT_EQ(Unpacked(packed, range), (std::vector<Hash128>{Of(10), Of(10, 5)}));
}

TEST(PackedHashes, TheNewestChangeCounts) {
  std::vector<HashChange> changes = {{Of(3), true},  {Of(1), true}, {Of(3), false},
                                     {Of(1), false}, {Of(1), true}, {Of(2), false}};
  KeepNewest(changes);
  ASSERT_EQ(changes.size(), 3U);
  EXPECT_TRUE(changes[0].hash == Of(1) && changes[0].added);
  EXPECT_TRUE(changes[1].hash == Of(2) && !changes[1].added);
  EXPECT_TRUE(changes[2].hash == Of(3) && !changes[2].added);
}

// Against a map, over many changes in batches.
TEST(PackedHashes, ChangesMergeAsInAMap) {
  uint64_t random = 1;
  std::map<uint64_t, bool> expected;
  std::vector<Hash128> merged;
  for (int batch = 0; batch < 50; ++batch) {
    std::vector<HashChange> changes;
    for (int i = 0; i < 100; ++i) {
      random = random * 6364136223846793005 + 1442695040888963407;
      uint64_t const key = random >> 56;
      bool const added = (random >> 40 & 1) != 0;
      changes.push_back({Of(key), added});
      expected[key] = added;
    }
    KeepNewest(changes);
    merged = ApplyChanges(merged, changes.data(), changes.data() + changes.size());
  }
  std::vector<Hash128> living;
  for (const auto& [key, added] : expected)
    if (added) living.push_back(Of(key));
  EXPECT_EQ(merged, living);
}

TEST(PackedHashes, DifferencesLeaveWhatTheOtherLacks) {
  EXPECT_EQ(WithoutHashes({Of(1), Of(2), Of(3)}, {Of(0), Of(2), Of(4)}),
            (std::vector<Hash128>{Of(1), Of(3)}));
  EXPECT_TRUE(WithoutHashes({Of(1)}, {Of(1)}).empty());
}

}  // namespace
}  // namespace prm
