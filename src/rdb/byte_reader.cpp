#include "rdb/byte_reader.h"

#include <string>

namespace prm::rdb {

Error ByteReader::Corrupt(std::string_view problem) const {
  std::string where = "byte " + std::to_string(offset_);
  if (part_ != nullptr) where += " of the " + std::string(part_) + " at byte " + std::to_string(place_);
  return {ErrorCode::kCorruptData, "corrupt value at " + where + ": " + std::string(problem), {}, {}};
}

Error ByteReader::Truncated(uint64_t wanted) const {
  return Corrupt(std::to_string(wanted) + " bytes expected, " + std::to_string(remaining()) + " left");
}

}  // namespace prm::rdb
