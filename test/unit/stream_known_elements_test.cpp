// Elements that are named without reading them. Commands of every kind against a server:
// test/t/084_live_elements.pl.
#include "stream/known_elements.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "rdb/encoder.h"
#include "rdb/json.h"

namespace prm::stream {
namespace {

constexpr size_t kBytes = 1000000;

// "name, name | gone, gone" of the elements that a command changes; "?": that cannot be told.
std::string Resolved(KnownElements& known, const std::vector<std::string>& words) {
  redis::StreamCommand command;
  for (const std::string& word : words) command.arguments.push_back(word);
  command.count = words.size();
  auto changes = ElementChangesOf(command);
  if (!changes || !known.Resolve(words[1], *changes)) return "?";
  EXPECT_FALSE(changes->ends.IsNeeded());
  std::string states, gone;
  for (const auto& [name, state] : changes->elements) {
    std::string& text = state ? states : gone;
    if (!text.empty()) text += ", ";
    if (changes->type == rdb::ValueType::kStream) {
      text += rdb::FormatStreamId(IdOfElement(name));
    } else {
      const auto position = static_cast<unsigned char>(name.back());
      text += std::to_string(position) + (state ? "=" + state->value : "");
    }
  }
  return states + " | " + gone;
}

source::Entry List(const std::vector<std::string>& values) {
  rdb::CollectionEncoder encoder(rdb::ValueType::kList);
  for (const std::string& value : values) encoder.AddListElement(value);
  source::Entry entry;
  entry.payload = encoder.Finish();
  return entry;
}

source::Entry Stream(const std::vector<rdb::StreamId>& ids) {
  rdb::StreamEncoder encoder;
  rdb::StreamInfo info;
  for (const rdb::StreamId& id : ids) encoder.AddEntry(info.last_id = id, {{"f", "v"}});
  info.length = encoder.count();
  source::Entry entry;
  entry.payload = encoder.Finish(info, {}, false);
  return entry;
}

TEST(KnownElementsTest, Lists) {
  KnownElements known(kBytes);
  EXPECT_EQ(Resolved(known, {"RPUSH", "l", "a"}), "?");
  known.Note("l", List({"a", "b", "c"}));
  EXPECT_EQ(Resolved(known, {"RPUSH", "l", "d", "e"}), "3=d, 4=e | ");
  EXPECT_EQ(Resolved(known, {"RPOP", "l", "3"}), " | 2, 3, 4");
  EXPECT_EQ(Resolved(known, {"RPUSHX", "l", "f"}), "2=f | ");
  EXPECT_EQ(Resolved(known, {"RPOP", "l", "100"}), " | 0, 1, 2");
  EXPECT_EQ(Resolved(known, {"RPUSH", "l", "g"}), "0=g | ");
  known.NoteGone("l");
  EXPECT_EQ(Resolved(known, {"RPOP", "l"}), "?");  // what is not there is not taken
  EXPECT_EQ(Resolved(known, {"RPUSH", "l", "g"}), "?");
  known.Note("l", List({"a"}));
  known.Forget("l");
  EXPECT_EQ(Resolved(known, {"RPOP", "l"}), "?");
}

TEST(KnownElementsTest, Streams) {
  KnownElements known(kBytes);
  EXPECT_EQ(Resolved(known, {"XADD", "x", "1-0", "f", "v"}), "1-0 | ");
  EXPECT_EQ(Resolved(known, {"XTRIM", "x", "MAXLEN", "0"}), "?");
  known.Note("x", Stream({{1, 0}, {1, 5}, {2, 0}}));
  EXPECT_EQ(Resolved(known, {"XADD", "x", "MAXLEN", "3", "3-0", "f", "v"}), "3-0 | 1-0");
  EXPECT_EQ(Resolved(known, {"XDEL", "x", "2-0", "7-7"}), " | 2-0, 7-7");
  EXPECT_EQ(Resolved(known, {"XTRIM", "x", "MAXLEN", "2"}), " | ");
  EXPECT_EQ(Resolved(known, {"XTRIM", "x", "MINID", "3"}), " | 1-5");
  EXPECT_EQ(Resolved(known, {"XADD", "x", "MAXLEN", "0", "4-0", "f", "v"}), " | 3-0, 4-0");
  EXPECT_EQ(Resolved(known, {"XADD", "x", "5-0", "f", "v"}), "5-0 | ");
  EXPECT_EQ(Resolved(known, {"XADD", "x", "4-9", "f", "v"}), "4-9 | ");  // no server sends that
  EXPECT_EQ(Resolved(known, {"XTRIM", "x", "MAXLEN", "1"}), "?");
}

TEST(KnownElementsTest, OtherTypes) {
  KnownElements known(kBytes);
  known.Note("k", List({"a"}));
  EXPECT_EQ(Resolved(known, {"XADD", "k", "1-0", "f", "v"}), "?");
  known.Note("k", List({"a"}));
  source::Entry text;
  text.plain = true;
  text.payload = "text";
  known.Note("k", text);
  EXPECT_EQ(Resolved(known, {"RPUSH", "k", "a"}), "?");
}

TEST(KnownElementsTest, IsBounded) {
  KnownElements known(kBytes);
  std::vector<rdb::StreamId> ids;
  for (uint64_t i = 1; i <= 10000; ++i) ids.push_back({i, 0});
  known.Note("x", Stream(ids));  // more than an eighth of the memory
  EXPECT_EQ(Resolved(known, {"XTRIM", "x", "MAXLEN", "9999"}), "?");
  known.Note("l", List({"a"}));
  for (int i = 0; i < 20000; ++i) known.NoteGone("other" + std::to_string(i));
  EXPECT_EQ(Resolved(known, {"RPOP", "l"}), "?");
  known.Note("l", List({"a"}));
  for (int i = 0; i < 20000; ++i) {
    known.NoteGone("other" + std::to_string(i));
    if (i % 1000 == 0) EXPECT_NE(Resolved(known, {"RPUSH", "l", "a"}), "?");
  }
  known.Clear();
  EXPECT_EQ(Resolved(known, {"RPOP", "l"}), "?");
}

}  // namespace
}  // namespace prm::stream
