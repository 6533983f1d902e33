#include "core/small_file.h"

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>
#include <fstream>
#include <string>

namespace prm {
namespace {

class SmallFileTest : public testing::Test {
 protected:
  SmallFileTest() {
    char name[] = "/tmp/small_file_XXXXXX";
    directory_ = mkdtemp(name);
  }
  ~SmallFileTest() override {
    unlink(path("file").c_str());
    rmdir(directory_.c_str());
  }
  std::string path(const std::string& name) const { return directory_ + "/" + name; }
  static std::string Reason(const std::string& file) {
    const auto read = ReadSmallFile(file);
    return read.ok() ? "" : read.error().detail;
  }

  std::string directory_;
};

TEST_F(SmallFileTest, ReadsARegularFile) {
  const std::string bytes(100000, 'x');
  std::ofstream(path("file")) << bytes;
  const auto read = ReadSmallFile(path("file"));
  ASSERT_TRUE(read.ok()) << read.error().detail;
  EXPECT_EQ(read.value().bytes, bytes);
  EXPECT_EQ(read.value().info.st_uid, geteuid());
}

TEST_F(SmallFileTest, RefusesEverythingElseAtOnce) {
  EXPECT_EQ(Reason(path("none")), "No such file or directory.");
  EXPECT_EQ(Reason(directory_), "It is not a regular file.");
  EXPECT_EQ(Reason("/dev/zero"), "It is not a regular file.");
  ASSERT_EQ(mkfifo(path("file").c_str(), 0600), 0);
  EXPECT_EQ(Reason(path("file")), "It is not a regular file.");
}

TEST_F(SmallFileTest, RefusesALargeOne) {
  std::ofstream(path("file")) << std::string(kMostSmallFileBytes + 1, 'x');
  EXPECT_EQ(Reason(path("file")), "It has more than 1048576 bytes.");
}

}  // namespace
}  // namespace prm
