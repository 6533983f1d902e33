#include "rdb/encoded_string.h"

#include <charconv>
#include <cstddef>

#include "rdb/lzf.h"

namespace prm::rdb {

namespace {

// The first byte: two bits of kind, six bits of length or detail.
constexpr uint8_t k6Bits = 0;
constexpr uint8_t k14Bits = 1;
constexpr uint8_t kSpecialString = 3;
constexpr uint8_t k32Bits = 0x80;
constexpr uint8_t k64Bits = 0x81;

enum SpecialString : uint64_t { kInt8 = 0, kInt16 = 1, kInt32 = 2, kLzf = 3 };

// A length, or, when is_special, the kind of SpecialString that follows.
struct Prefix {
  uint64_t value = 0;
  bool is_special = false;
};

Status ReadPrefix(ByteReader& reader, Prefix& prefix) {
  uint8_t first = 0;
  PRM_RETURN_IF_ERROR(reader.ReadByte(first));
  const uint8_t kind = first >> 6;
  if (kind == k6Bits || kind == kSpecialString) {
    prefix.value = first & 0x3fu;
    prefix.is_special = kind == kSpecialString;
    return {};
  }
  if (kind == k14Bits) {
    uint8_t second = 0;
    PRM_RETURN_IF_ERROR(reader.ReadByte(second));
    prefix.value = (first & 0x3fu) << 8 | second;
    return {};
  }
  if (first == k32Bits) {
    uint32_t length = 0;
    PRM_RETURN_IF_ERROR(reader.ReadBigEndian(length));
    prefix.value = length;
    return {};
  }
  if (first == k64Bits) return reader.ReadBigEndian(prefix.value);
  return reader.Corrupt("unknown length encoding " + std::to_string(first));
}

Error UnknownEncoding(const ByteReader& reader, const Prefix& prefix) {
  return reader.Corrupt("unknown string encoding " + std::to_string(prefix.value));
}

template <typename Unsigned, typename Signed>
Status ReadInteger(ByteReader& reader, std::string& scratch, Bytes& bytes) {
  Unsigned value = 0;
  PRM_RETURN_IF_ERROR(reader.ReadLittleEndian(value));
  scratch.resize(12);  // "-2147483648" has 11 characters
  char* const begin = scratch.data();
  const auto rendered = std::to_chars(begin, begin + scratch.size(), static_cast<Signed>(value));
  bytes = Bytes(begin, static_cast<size_t>(rendered.ptr - begin));
  return {};
}

Status ReadPlain(ByteReader& reader, uint64_t size, std::string& scratch, Bytes& bytes) {
  if (!reader.is_stream()) return reader.ReadBytes(size, bytes);
  PRM_RETURN_IF_ERROR(reader.ReadInto(size, scratch));
  bytes = scratch;
  return {};
}

Status ReadCompressed(ByteReader& reader, std::string& scratch, Bytes& bytes) {
  uint64_t compressed_size = 0;
  uint64_t size = 0;
  Bytes compressed;
  PRM_RETURN_IF_ERROR(ReadLength(reader, compressed_size));
  PRM_RETURN_IF_ERROR(ReadLength(reader, size));
  const uint64_t place = reader.offset();
  std::string from_stream;
  PRM_RETURN_IF_ERROR(ReadPlain(reader, compressed_size, from_stream, compressed));
  PRM_RETURN_IF_ERROR(LzfDecompress(compressed, size, scratch, place, reader.interrupts()));
  bytes = scratch;
  return {};
}

}  // namespace

Status ReadLength(ByteReader& reader, uint64_t& length) {
  Prefix prefix;
  PRM_RETURN_IF_ERROR(ReadPrefix(reader, prefix));
  if (prefix.is_special) return reader.Corrupt("a string is found where a length is expected");
  length = prefix.value;
  return {};
}

Status ReadString(ByteReader& reader, std::string& scratch, Bytes& bytes) {
  Prefix prefix;
  PRM_RETURN_IF_ERROR(ReadPrefix(reader, prefix));
  if (!prefix.is_special) return ReadPlain(reader, prefix.value, scratch, bytes);
  switch (prefix.value) {
    case kInt8:
      return ReadInteger<uint8_t, int8_t>(reader, scratch, bytes);
    case kInt16:
      return ReadInteger<uint16_t, int16_t>(reader, scratch, bytes);
    case kInt32:
      return ReadInteger<uint32_t, int32_t>(reader, scratch, bytes);
    case kLzf:
      return ReadCompressed(reader, scratch, bytes);
    default:
      return UnknownEncoding(reader, prefix);
  }
}

Status SkipString(ByteReader& reader) {
  Prefix prefix;
  PRM_RETURN_IF_ERROR(ReadPrefix(reader, prefix));
  if (!prefix.is_special) return reader.Skip(prefix.value);
  switch (prefix.value) {
    case kInt8:
      return reader.Skip(sizeof(int8_t));
    case kInt16:
      return reader.Skip(sizeof(int16_t));
    case kInt32:
      return reader.Skip(sizeof(int32_t));
    case kLzf: {
      uint64_t compressed_size = 0;
      uint64_t size = 0;
      PRM_RETURN_IF_ERROR(ReadLength(reader, compressed_size));
      PRM_RETURN_IF_ERROR(ReadLength(reader, size));
      return reader.Skip(compressed_size);
    }
    default:
      return UnknownEncoding(reader, prefix);
  }
}

}  // namespace prm::rdb
