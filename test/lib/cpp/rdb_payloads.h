// Values whose DUMP payloads the decoder is tested with: every type of Redis 7.0 in every encoding.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/bytes.h"
#include "lib/cpp/redis_client.h"

namespace prm::test {

// The key that the commands of a sample write.
inline const char kSampleKey[] = "k";

struct Sample {
  std::string name;
  uint8_t rdb_type;                                // the type number that its payload must have
  std::vector<std::vector<std::string>> commands;  // write kSampleKey; may change settings before
};

std::vector<Sample> Samples();

// Arguments of a RedisServer that can hold all samples: some need DEBUG.
std::vector<std::string> SampleServerArguments();

// Removes what the server holds, restores the settings that samples change, runs the sample's commands and
// returns the payload.
std::string DumpSample(RedisClient& redis, const Sample& sample);

// The payload (type byte and value) with an RDB version and "checksum not computed" behind it.
std::string Framed(Bytes body, unsigned version = 10);

// A payload without version and checksum.
Bytes Body(Bytes payload);

// Payloads written by redis-server 7.0.15 in the folder that PRM_RDB_FIXTURES names; nothing where it is not
// set.
std::vector<std::string> FixturePayloads();

}  // namespace prm::test
