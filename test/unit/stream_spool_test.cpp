// The spool of a stream: what is written is read, also after any cut, and damage is noticed.
#include "stream/stream_spool.h"

#include <gtest/gtest.h>

#include <map>
#include <random>
#include <string>
#include <vector>

#include "lib/cpp/spool_files.h"

namespace prm::stream {
namespace {

using namespace source;

using redis::ReplicationPoint;
using test::SpoolFiles;
using Kind = SpoolChunk::Kind;

const std::string kId(40, 'a');
const std::string kOtherId(40, 'b');
constexpr uint64_t kSmallSegment = 300;

std::unique_ptr<StreamSpoolWriter> OpenWriter(SpoolFiles& files, uint64_t segment_bytes = kSmallSegment) {
  auto opened = StreamSpoolWriter::Open(files, segment_bytes);
  EXPECT_TRUE(opened.ok());
  return std::move(opened.value());
}

std::unique_ptr<StreamSpoolReader> OpenReader(SpoolFiles& files,
                                              const std::optional<ReplicationPoint>& from) {
  auto opened = StreamSpoolReader::Open(files, from);
  EXPECT_TRUE(opened.ok()) << opened.error().message;
  return std::move(opened.value());
}

// A reader's chunks as text: bytes as they are, "[full id offset]" and "[id id offset]".
std::string ReadAll(StreamSpoolReader& reader, Status* status = nullptr) {
  std::string text;
  SpoolChunk chunk;
  while (true) {
    const auto next = reader.Next(chunk);
    if (!next.ok()) {
      EXPECT_NE(status, nullptr) << next.error().message << next.error().detail;
      if (status != nullptr) *status = next.error();
      return text;
    }
    if (!next.value()) return text;
    if (chunk.kind == Kind::kBytes) {
      text += chunk.content;
      continue;
    }
    text += chunk.kind == Kind::kFullSync ? "[full " : "[id ";
    text += chunk.content.substr(0, 1) + " " + std::to_string(chunk.offset) + "]";
  }
}

class StreamSpoolTest : public testing::Test {
 protected:
  // Ten letters at a time.
  void Write(StreamSpoolWriter& writer, char from, char to) {
    for (char letter = from; letter <= to; ++letter)
      ASSERT_TRUE(writer.Append(std::string(10, letter), {letter, letter}).ok());
  }
  static std::string Letters(char from, char to) {
    std::string text;
    for (char letter = from; letter <= to; ++letter) text += std::string(10, letter);
    return text;
  }

  SpoolFiles files_;
};

TEST_F(StreamSpoolTest, HoldsNothing) {
  EXPECT_FALSE(OpenWriter(files_)->end());
  EXPECT_EQ(OpenWriter(files_)->durable_offset(), 0U);
  EXPECT_EQ(OpenReader(files_, std::nullopt), nullptr);
  EXPECT_EQ(OpenReader(files_, ReplicationPoint{kId, 5}), nullptr);
}

TEST_F(StreamSpoolTest, ReadsWhatIsWritten) {
  auto writer = OpenWriter(files_);
  ASSERT_TRUE(writer->Begin({kId, 100}, true).ok());
  Write(*writer, 'a', 'z');
  EXPECT_EQ(writer->end(), (ReplicationPoint{kId, 360}));
  EXPECT_GT(files_.Numbers().size(), 3U);
  auto reader = OpenReader(files_, std::nullopt);
  EXPECT_EQ(ReadAll(*reader), "[full a 100]" + Letters('a', 'z'));
  // The reader stays at the end, and gets what comes.
  for (char letter = 'A'; letter <= 'Z'; ++letter) {
    EXPECT_EQ(ReadAll(*reader), "");
    Write(*writer, letter, letter);
    EXPECT_EQ(ReadAll(*reader), std::string(10, letter));
  }
}

TEST_F(StreamSpoolTest, TellsWhenBytesCame) {
  auto writer = OpenWriter(files_);
  ASSERT_TRUE(writer->Begin({kId, 0}, false).ok());
  ASSERT_TRUE(writer->Append("abc", {1800000000100, 1800000000123}).ok());
  ASSERT_TRUE(writer->Append("d", {-2, -1}).ok());
  auto reader = OpenReader(files_, ReplicationPoint{kId, 1});
  SpoolChunk chunk;
  ASSERT_TRUE(reader->Next(chunk).value());
  EXPECT_EQ(chunk.content, "bc");
  EXPECT_EQ(chunk.offset, 1U);
  EXPECT_EQ(chunk.time.after_ms, 1800000000100);
  EXPECT_EQ(chunk.time.until_ms, 1800000000123);
  ASSERT_TRUE(reader->Next(chunk).value());
  EXPECT_EQ(chunk.time.until_ms, -1);
}

TEST_F(StreamSpoolTest, SplitsLargePieces) {
  auto writer = OpenWriter(files_, kSegmentBytes);
  ASSERT_TRUE(writer->Begin({kId, 0}, true).ok());
  std::string bytes(40 << 20, '\0');
  std::minstd_rand random(7);
  for (char& byte : bytes) byte = static_cast<char>(random());
  ASSERT_TRUE(writer->Append(bytes, {5, 5}).ok());
  EXPECT_EQ(files_.Numbers().size(), 3U);
  EXPECT_EQ(writer->CountBytes().value(), 3 * kSegmentBytes);
  auto reader = OpenReader(files_, ReplicationPoint{kId, 0});
  EXPECT_TRUE(ReadAll(*reader) == bytes);
}

TEST_F(StreamSpoolTest, IsDurableWhereItWasSynced) {
  auto writer = OpenWriter(files_);
  ASSERT_TRUE(writer->Begin({kId, 100}, true).ok());
  EXPECT_EQ(writer->durable_offset(), 100U);
  Write(*writer, 'a', 'c');
  EXPECT_EQ(writer->durable_offset(), 100U);
  ASSERT_TRUE(writer->Sync().ok());
  EXPECT_EQ(writer->durable_offset(), 130U);
  // A segment that ends is durable before the next one begins.
  Write(*writer, 'd', 'z');
  EXPECT_GT(writer->durable_offset(), 130U);
  EXPECT_LT(writer->durable_offset(), 360U);
}

TEST_F(StreamSpoolTest, FindsEveryPoint) {
  auto writer = OpenWriter(files_);
  ASSERT_TRUE(writer->Begin({kId, 100}, true).ok());
  Write(*writer, 'a', 'm');
  ASSERT_TRUE(writer->ChangeId(kOtherId).ok());
  Write(*writer, 'n', 'z');
  const std::string all = Letters('a', 'z');
  for (uint64_t offset = 100; offset <= 360; ++offset) {
    std::string rest = all.substr(offset - 100);
    auto before = OpenReader(files_, ReplicationPoint{kId, offset});
    auto after = OpenReader(files_, ReplicationPoint{kOtherId, offset});
    EXPECT_EQ(before != nullptr, offset <= 230) << offset;
    EXPECT_EQ(after != nullptr, offset >= 230) << offset;
    if (after) EXPECT_EQ(ReadAll(*after), rest) << offset;
    if (before) EXPECT_EQ(ReadAll(*before), rest.insert(230 - offset, "[id b 230]")) << offset;
  }
  for (const ReplicationPoint& none :
       {ReplicationPoint{kId, 99}, ReplicationPoint{kOtherId, 361}, ReplicationPoint{kOtherId, 0},
        ReplicationPoint{std::string(40, 'c'), 150}})
    EXPECT_EQ(OpenReader(files_, none), nullptr);
}

// After a failure any part of the files may be left. The writer finds a beginning of the stream and continues
// there, and the reader gets all of it.
TEST_F(StreamSpoolTest, GoesOnAfterEveryCut) {
  const std::string all = Letters('a', 'p');
  {
    auto writer = OpenWriter(files_);
    ASSERT_TRUE(writer->Begin({kId, 100}, true).ok());
    Write(*writer, 'a', 'p');
  }
  const auto whole = files_.Contents();
  ASSERT_GT(whole.size(), 2U);
  const auto [last, bytes] = *whole.rbegin();
  for (size_t length = 0; length <= bytes.size(); ++length) {
    for (const bool zeros : {false, true}) {
      auto cut = whole;
      cut[last].resize(length);
      if (zeros) cut[last].resize(bytes.size() + 100);
      files_.SetContents(cut);
      // A reader that was faster than the writer came back.
      auto early = OpenReader(files_, ReplicationPoint{kId, 100});
      std::string read = ReadAll(*early);
      auto writer = OpenWriter(files_);
      ASSERT_TRUE(writer->end());
      EXPECT_EQ(writer->durable_offset(), writer->end()->offset);
      EXPECT_EQ(read, all.substr(0, writer->end()->offset - 100));
      ASSERT_TRUE(writer->Append(all.substr(writer->end()->offset - 100), {1, 1}).ok());
      Write(*writer, 'A', 'Z');
      read += ReadAll(*early);
      EXPECT_EQ(read, all + Letters('A', 'Z')) << length;
      auto reader = OpenReader(files_, std::nullopt);
      EXPECT_EQ(ReadAll(*reader), "[full a 100]" + all + Letters('A', 'Z'));
    }
  }
}

TEST_F(StreamSpoolTest, NoticesDamage) {
  {
    auto writer = OpenWriter(files_);
    ASSERT_TRUE(writer->Begin({kId, 100}, true).ok());
    Write(*writer, 'a', 'p');
  }
  const auto whole = files_.Contents();
  for (const auto& [number, bytes] : whole) {
    const bool is_last = number == whole.rbegin()->first;
    for (size_t at = 0; at < bytes.size(); ++at) {
      auto damaged = whole;
      damaged[number][at] ^= 0x10;
      files_.SetContents(damaged);
      auto opened = StreamSpoolReader::Open(files_, ReplicationPoint{kId, 100});
      Status status;
      std::string read;
      if (opened.ok() && opened.value()) read = ReadAll(*opened.value(), &status);
      EXPECT_EQ(read, Letters('a', 'p').substr(0, read.size())) << number << " " << at;
      EXPECT_LT(read.size(), 160U);
      // A reader stops before the damage, as if nothing followed. If a segment follows, that is an error.
      const bool is_error = !opened.ok() || !status.ok() || !opened.value();
      EXPECT_EQ(is_error, !is_last) << number << " " << at;
      if (!status.ok()) EXPECT_EQ(status.error().code, ErrorCode::kCorruptData);
      if (is_last) {
        auto writer = OpenWriter(files_);
        EXPECT_EQ(writer->end()->offset, 100 + read.size());
      }
    }
  }
}

TEST_F(StreamSpoolTest, NoticesWhatIsMissing) {
  {
    auto writer = OpenWriter(files_);
    ASSERT_TRUE(writer->Begin({kId, 100}, true).ok());
    Write(*writer, 'a', 'z');
  }
  const auto numbers = files_.Numbers();
  ASSERT_TRUE(files_.Remove(numbers[1]).ok());
  auto reader = OpenReader(files_, ReplicationPoint{kId, 100});
  Status status;
  ReadAll(*reader, &status);
  ASSERT_FALSE(status.ok());
  EXPECT_EQ(status.error().code, ErrorCode::kCorruptData);
  EXPECT_NE(status.error().detail.find("offset"), std::string::npos);
}

TEST_F(StreamSpoolTest, RemovesWhatIsApplied) {
  auto writer = OpenWriter(files_);
  ASSERT_TRUE(writer->Begin({kId, 100}, true).ok());
  Write(*writer, 'a', 'z');
  const size_t count = files_.Numbers().size();
  auto reader = OpenReader(files_, ReplicationPoint{kId, 100});
  ReadAll(*reader);
  ASSERT_TRUE(reader->RemoveUpTo(100).ok());
  EXPECT_EQ(files_.Numbers().size(), count);
  ASSERT_TRUE(reader->RemoveUpTo(230).ok());
  EXPECT_LT(files_.Numbers().size(), count);
  auto again = OpenReader(files_, ReplicationPoint{kId, 230});
  ASSERT_NE(again, nullptr);
  EXPECT_EQ(ReadAll(*again), Letters('n', 'z'));
  // A reader that begins in the middle removes what is before it, once that is durable.
  auto late = OpenReader(files_, ReplicationPoint{kId, 350});
  EXPECT_EQ(ReadAll(*late), Letters('z', 'z'));
  ASSERT_TRUE(late->RemoveUpTo(230).ok());
  EXPECT_GT(files_.Numbers().size(), 1U);
  ASSERT_TRUE(late->RemoveUpTo(360).ok());
  EXPECT_EQ(files_.Numbers().size(), 1U);
  // The segment that is read stays, and the writer goes on in it.
  Write(*writer, 'A', 'Z');
  EXPECT_EQ(ReadAll(*late), Letters('A', 'Z'));
}

TEST_F(StreamSpoolTest, BeginsAgain) {
  auto writer = OpenWriter(files_);
  ASSERT_TRUE(writer->Begin({kId, 1000}, true).ok());
  Write(*writer, 'a', 'z');
  auto slow = OpenReader(files_, ReplicationPoint{kId, 1000});
  auto fast = OpenReader(files_, ReplicationPoint{kId, 1260});
  ASSERT_TRUE(writer->Begin({kOtherId, 7}, true).ok());
  EXPECT_EQ(files_.Numbers().size(), 1U);
  Write(*writer, 'A', 'B');
  EXPECT_EQ(ReadAll(*fast), "[full b 7]" + Letters('A', 'B'));
  // The slow reader gets a beginning of the chunks that it had not read yet, and then the full sync.
  const std::string read = ReadAll(*slow);
  const std::string end = "[full b 7]" + Letters('A', 'B');
  ASSERT_GE(read.size(), end.size());
  EXPECT_EQ(read.substr(read.size() - end.size()), end);
  const std::string beginning = read.substr(0, read.size() - end.size());
  EXPECT_EQ(beginning, Letters('a', 'z').substr(0, beginning.size()));
  EXPECT_EQ(OpenReader(files_, ReplicationPoint{kId, 1100}), nullptr);
  auto reopened = OpenWriter(files_);
  EXPECT_EQ(reopened->end(), (ReplicationPoint{kOtherId, 27}));
}

// A write that fails in the middle, wherever that is, is made again once there is room.
TEST_F(StreamSpoolTest, GoesOnAfterAFullDisk) {
  for (const size_t most : {size_t{0}, size_t{1}, kChunkFrame, kChunkFrame + 25}) {
    auto writer = OpenWriter(files_);
    files_.set_most_written(most);
    EXPECT_FALSE(writer->Begin({kId, 100}, true).ok());
    EXPECT_FALSE(OpenWriter(files_)->end());
    EXPECT_FALSE(writer->end());
    files_.set_most_written(std::string::npos);
    ASSERT_TRUE(writer->Begin({kId, 100}, true).ok());
    auto reader = OpenReader(files_, std::nullopt);
    std::string read;
    for (char letter = 'a'; letter <= 'z'; ++letter) {
      const auto end = writer->end();
      files_.set_most_written(most);
      // What comes next need not be divided as before.
      EXPECT_FALSE(writer->Append(std::string(30, letter), {letter, letter}).ok());
      EXPECT_EQ(writer->end(), end);
      read += ReadAll(*reader);
      files_.set_most_written(std::string::npos);
      Write(*writer, letter, letter);
    }
    EXPECT_EQ(read + ReadAll(*reader), "[full a 100]" + Letters('a', 'z'));
    EXPECT_EQ(OpenWriter(files_)->end(), (ReplicationPoint{kId, 360}));
    files_.set_most_written(most);
    EXPECT_FALSE(writer->ChangeId(kOtherId).ok());
    EXPECT_EQ(writer->end(), (ReplicationPoint{kId, 360}));
    files_.set_most_written(std::string::npos);
    ASSERT_TRUE(writer->ChangeId(kOtherId).ok());
    EXPECT_EQ(OpenWriter(files_)->end(), (ReplicationPoint{kOtherId, 360}));
    files_.SetContents({});
  }
}

// The spool was lost. It begins anew without a snapshot, at the position up to which the stream was applied.
TEST_F(StreamSpoolTest, BeginsWithoutASnapshot) {
  auto writer = OpenWriter(files_);
  ASSERT_TRUE(writer->Begin({kId, 500}, false).ok());
  Write(*writer, 'a', 'c');
  auto reader = OpenReader(files_, ReplicationPoint{kId, 500});
  EXPECT_EQ(ReadAll(*reader), Letters('a', 'c'));
  EXPECT_EQ(OpenReader(files_, ReplicationPoint{kId, 499}), nullptr);
}

}  // namespace
}  // namespace prm::stream
