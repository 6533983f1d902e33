#include "core/journal_block.h"

#include <gtest/gtest.h>

namespace prm {
namespace {

const SipKey kSalt = {1, 2};

JournalLine Update() {
  JournalLine line;
  line.earlier = RowText{"a", std::nullopt, "", std::string(300, 'x')};
  line.key = {"a"};
  line.later = RowText{std::nullopt, ValueDigest(kSalt, Bytes("new")), "", std::nullopt};
  return line;
}

TEST(JournalBlock, ReadsWhatItWrote) {
  JournalLine inserted, deleted = Update();
  inserted.key = {"b"};
  inserted.later = RowText{ValueDigest(kSalt, Bytes("b")), "", "", ""};
  deleted.later.reset();
  JournalBlock block;
  for (const JournalLine& line : {Update(), inserted, deleted}) block.Add(line);
  EXPECT_EQ(block.lines(), 3);
  std::vector<JournalLine> lines;
  ASSERT_TRUE(ReadJournalBlock(block.bytes(), 4, 1, lines));
  ASSERT_EQ(lines.size(), 3U);
  EXPECT_EQ(lines[0].key, Update().key);
  EXPECT_EQ(lines[0].earlier, Update().earlier);
  EXPECT_EQ(lines[0].later, Update().later);
  EXPECT_EQ(lines[1].key, inserted.key);
  EXPECT_FALSE(lines[1].earlier);
  EXPECT_EQ(lines[1].later, inserted.later);
  EXPECT_EQ(lines[2].earlier, deleted.earlier);
  EXPECT_FALSE(lines[2].later);
}

TEST(JournalBlock, DamageIsFound) {
  JournalBlock block;
  block.Add(Update());
  for (size_t size = 1; size < block.bytes().size(); ++size) {
    std::vector<JournalLine> lines;
    EXPECT_FALSE(ReadJournalBlock(Bytes(block.bytes()).substr(0, size), 4, 1, lines)) << size;
  }
  std::vector<JournalLine> lines;
  EXPECT_FALSE(ReadJournalBlock(std::string(1, '\4'), 4, 1, lines));
  EXPECT_FALSE(ReadJournalBlock(std::string(12, '\xff'), 1, 1, lines));
}

TEST(ValueDigest, TellsNullEmptyAndSaltApart) {
  EXPECT_EQ(ValueDigest(kSalt, std::nullopt), "");
  EXPECT_EQ(ValueDigest(kSalt, Bytes("")).size(), 8U);
  EXPECT_EQ(ValueDigest(kSalt, Bytes("x")), ValueDigest(kSalt, Bytes("x")));
  EXPECT_NE(ValueDigest(kSalt, Bytes("x")), ValueDigest(kSalt, Bytes("y")));
  EXPECT_NE(ValueDigest(kSalt, Bytes("x")), ValueDigest(SipKey{3, 4}, Bytes("x")));
}

}  // namespace
}  // namespace prm
