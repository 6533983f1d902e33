#include "core/printable.h"

#include <gtest/gtest.h>

namespace prm {
namespace {

TEST(Printable, EscapesWhatIsNotPrintableAscii) {
  EXPECT_EQ(Printable("user:{1} ~"), "user:{1} ~");
  EXPECT_EQ(Printable(Bytes("a\0\n\x7f\xc3\xa4", 6)), "a\\x00\\x0a\\x7f\\xc3\\xa4");
  EXPECT_EQ(Printable("a\\b"), "a\\\\b");
}

TEST(Printable, CutsLongTexts) {
  EXPECT_EQ(Printable("abcdef", 6), "abcdef");
  EXPECT_EQ(Printable("abcdefg", 6), "abcdef...");
}

}  // namespace
}  // namespace prm
