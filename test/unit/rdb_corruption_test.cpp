// Damaged payloads give an error or another value, never a crash. PRM_SANITIZE makes this test stricter.
#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <vector>

#include "lib/cpp/rdb_payloads.h"
#include "lib/cpp/rdb_rows.h"
#include "lib/cpp/redis_client.h"
#include "lib/cpp/redis_server.h"

namespace prm::rdb {
namespace {

using test::DecodedRows;
using test::Framed;

// About so many bits of a long payload are flipped. Flipping all would show nothing new, and a checksum
// treats all bytes alike.
constexpr size_t kMaxFlips = 1000;
constexpr size_t kMaxChecksumFlips = 300;

// About so many cuts are made in the middle of a long payload.
constexpr size_t kMaxMiddleCuts = 200;

class RdbCorruption : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    test::RedisServer server(test::SampleServerArguments());
    test::RedisClient redis(server.port());
    payloads_ = new std::vector<std::string>(test::FixturePayloads());
    for (const test::Sample& sample : test::Samples()) payloads_->push_back(test::DumpSample(redis, sample));
  }

  static void TearDownTestSuite() { delete payloads_; }

  static std::string WithFlippedBit(std::string bytes, size_t bit) {
    bytes[bit / 8] = static_cast<char>(bytes[bit / 8] ^ (1 << (bit % 8)));
    return bytes;
  }

  // An odd step, so that all eight bits of a byte have their turn.
  static size_t Step(const std::string& payload, size_t flips) { return 8 * payload.size() / flips | 1; }

  // The sizes to which a payload is cut: every one in its first kilobyte and its last 256 bytes. In between
  // long values repeat themselves; the step is odd, so that cuts come at all places of what is repeated.
  static std::vector<size_t> Cuts(size_t size) {
    const size_t step = size / kMaxMiddleCuts | 1;
    std::vector<size_t> cuts;
    for (size_t cut = 0; cut < size;) {
      cuts.push_back(cut);
      const bool is_middle = cut >= 1024 && cut + 256 < size;
      cut = is_middle ? std::min(cut + step, size - 256) : cut + 1;
    }
    return cuts;
  }

  static std::vector<std::string>* payloads_;
};

std::vector<std::string>* RdbCorruption::payloads_ = nullptr;

TEST_F(RdbCorruption, EveryTruncatedValueIsAnError) {
  for (const std::string& payload : *payloads_) {
    const Bytes body = test::Body(payload);
    for (const size_t size : Cuts(body.size())) {
      ASSERT_FALSE(DecodedRows(Framed(body.substr(0, size))).ok())
          << size << " of " << testing::PrintToString(std::string(body.substr(0, 100)));
    }
  }
}

TEST_F(RdbCorruption, EveryTruncatedPayloadIsHandled) {
  for (const std::string& payload : *payloads_) {
    for (const size_t size : Cuts(payload.size())) {
      ASSERT_FALSE(DecodedRows(Bytes(payload).substr(0, size)).ok()) << size;
    }
  }
}

TEST_F(RdbCorruption, ChecksumFindsEveryFlippedBit) {
  for (const std::string& payload : *payloads_) {
    for (size_t bit = 0; bit < 8 * payload.size(); bit += Step(payload, kMaxChecksumFlips)) {
      ASSERT_FALSE(DecodedRows(WithFlippedBit(payload, bit)).ok()) << bit;
    }
  }
}

TEST_F(RdbCorruption, FlippedBitsWithoutChecksumAreHandled) {
  size_t errors = 0;
  size_t values = 0;
  for (const std::string& payload : *payloads_) {
    const std::string framed = Framed(test::Body(payload));
    for (size_t bit = 0; bit < 8 * (framed.size() - 10); bit += Step(framed, kMaxFlips)) {
      (DecodedRows(WithFlippedBit(framed, bit)).ok() ? values : errors) += 1;
    }
  }
  // Both outcomes occur: a flipped bit of a text makes another text, one of a length makes an error.
  EXPECT_GT(errors, 1000u);
  EXPECT_GT(values, 1000u);
}

}  // namespace
}  // namespace prm::rdb
