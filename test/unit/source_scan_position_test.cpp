#include "source/scan_position.h"

#include <gtest/gtest.h>

#include <string>

namespace prm::source {
namespace {

const std::string kRunId = "0123456789abcdef0123456789abcdef01234567";

TEST(ScanPosition, IsWrittenAndReadBack) {
  const ScanPosition positions[] = {
      {kRunId, 0, "0", false}, {kRunId, 12, "18446744073709551615", false}, {"", 3, "77", false}};
  const std::string texts[] = {"run_id=" + kRunId + " db=0 cursor=0",
                               "run_id=" + kRunId + " db=12 cursor=18446744073709551615",
                               "run_id=- db=3 cursor=77"};
  for (int i = 0; i < 3; ++i) {
    EXPECT_EQ(positions[i].ToString(), texts[i]);
    const auto parsed = ScanPosition::Parse(texts[i]);
    ASSERT_TRUE(parsed.ok()) << parsed.error().message;
    EXPECT_EQ(parsed.value().run_id, positions[i].run_id);
    EXPECT_EQ(parsed.value().db, positions[i].db);
    EXPECT_EQ(parsed.value().cursor, positions[i].cursor);
    EXPECT_FALSE(parsed.value().db_done);
  }
  const auto end = ScanPosition::Parse(ScanPosition{kRunId, 1, "0", true}.ToString());
  ASSERT_TRUE(end.ok());
  EXPECT_TRUE(end.value().db_done);
  EXPECT_EQ(end.value().ToString(), "run_id=" + kRunId + " db=1 cursor=end");
}

TEST(ScanPosition, RefusesAnythingElse) {
  for (const std::string& text :
       {std::string(), "run_id=" + kRunId, "run_id=" + kRunId + " db=0", "run_id=" + kRunId + " db=0 cursor=",
        "run_id=" + kRunId + " db=0 cursor=1 ", "run_id=" + kRunId + " db=0 cursor=1x",
        "run_id=" + kRunId + " db=-1 cursor=1", "run_id=" + kRunId + " db= cursor=1",
        "run_id=" + kRunId + " db=99999999999 cursor=1", "run_id=" + kRunId + " db=0  cursor=1",
        "run_id=" + kRunId + " db=0 cursor=-1", "run_id=" + kRunId.substr(1) + " db=0 cursor=1",
        "run_id=" + kRunId.substr(1) + "G db=0 cursor=1", " run_id=" + kRunId + " db=0 cursor=1",
        "run_id=" + kRunId + " db=0 cursor=" + std::string(40, '1')}) {
    const auto parsed = ScanPosition::Parse(text);
    ASSERT_FALSE(parsed.ok()) << text;
    EXPECT_EQ(parsed.error().code, ErrorCode::kInvalidArgument);
  }
}

}  // namespace
}  // namespace prm::source
