#include "rdb/file_reader.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <limits>
#include <utility>

#include "core/printable.h"
#include "rdb/dump.h"
#include "rdb/encoded_string.h"
#include "rdb/encoder.h"
#include "rdb/module.h"
#include "rdb/object.h"
#include "rdb/version.h"

namespace prm::rdb {

namespace {

// Opcodes, which take the place of a type: redis 7.4 and valkey 9.0 src/rdb.h, RDB_OPCODE_*.
enum Code : uint8_t {
  kRamLru = 107,      // Redis Enterprise
  kTemplate = 242,    // Redis from version 15 on; to Valkey a command, which files do not have
  kSlotImport = 243,  // Valkey alone; see kKeyMetadata for Redis
  kSlotInfo = 244,
  kFunction2 = 245,
  kFunctionDraft = 246,
  kModuleAux = 247,
  kIdle = 248,
  kFrequency = 249,
  kAux = 250,
  kResizeDb = 251,
  kExpiryMs = 252,
  kExpirySeconds = 253,
  kSelectDb = 254,
  kEnd = 255,
};

constexpr size_t kHeaderSize = 9;
constexpr Bytes kRedisWord = "REDIS";
constexpr Bytes kValkeyWord = "VALKEY";
constexpr Bytes kCompressedWord = "VCS";  // Valkey 9.2 with rdbcompression lz4 or zstd
constexpr unsigned kFirstWithChecksum = 5;
constexpr uint64_t kNotComputed = 0;
constexpr size_t kAuxLimit = 200;
constexpr size_t kMostNotes = 100;     // of a kind: servers write about ten
constexpr uint64_t kUnsignedPart = 2;  // see module.cpp

Error NotRdb(const std::string& detail) {
  return {ErrorCode::kCorruptData, "not an RDB file", detail,
          "Use a file written by SAVE, BGSAVE or a backup."};
}

// The most bytes that the length in front of a string takes, or those of compressing it.
constexpr size_t kMostStringOverhead = 16;

struct StringTaker : public ValueVisitor {
  explicit StringTaker(std::string& to) : value(to) {}
  void OnString(Bytes string) override { value = string; }
  std::string& value;
};

// Collects a hash, or only the size of one that is too large.
struct HashTaker : public ValueVisitor {
  explicit HashTaker(size_t most) : limit(most), encoder(ValueType::kHash) {}
  void OnHashField(Bytes field, Bytes value) override {
    if (size <= limit) encoder.AddHashField(field, value);
    size = size <= limit ? encoder.size() + kDumpFrameSize : size + field.size() + value.size();
  }

  size_t limit;
  CollectionEncoder encoder;
  uint64_t size = 0;
};

}  // namespace

FileReader::FileReader(ByteSource& source, const FilePosition& position)
    : source_(source),
      position_(position),
      stream_(source, position.offset, position.crc),
      reader_(stream_),
      db_(position.db) {}

Status FileReader::Open() {
  PRM_RETURN_IF_ERROR(ReadHeader());
  if (position_.offset != 0) return HasHashTemplates(header_.version) ? ReadTemplates() : Status();
  PRM_RETURN_IF_ERROR(reader_.Skip(kHeaderSize));
  return reader_.Settle();
}

// Templates precede all keys: a reader that starts behind them reads them first.
Status FileReader::ReadTemplates() {
  FileReader beginning(source_, {});
  PRM_RETURN_IF_ERROR(beginning.Open());
  const Result<bool> any_key = beginning.Next();
  if (!any_key.ok()) return any_key.error();
  templates_ = std::move(beginning.templates_);
  return {};
}

Status FileReader::ReadHeader() {
  std::array<char, kHeaderSize> bytes{};
  size_t size = 0;
  while (size < bytes.size()) {
    const Result<size_t> read = source_.Read(size, bytes.data() + size, bytes.size() - size);
    if (!read.ok()) return read.error();
    if (read.value() == 0) return NotRdb("It has " + std::to_string(size) + " bytes.");
    size += read.value();
  }
  const Bytes header(bytes.data(), bytes.size());
  Bytes digits;
  for (const Bytes word : {kRedisWord, kValkeyWord}) {
    if (header.substr(0, word.size()) == word) digits = header.substr(word.size());
    if (header.substr(0, word.size()) == kValkeyWord) header_.valkey = true;
  }
  if (header.substr(0, kCompressedWord.size()) == kCompressedWord) {
    return Error{ErrorCode::kUnsupported, "unsupported RDB file: compressed as a whole",
                 "Valkey 9.2 writes such files with rdbcompression lz4 or zstd.",
                 "Run CONFIG SET rdbcompression yes, and save the file again."};
  }
  const auto parsed = std::from_chars(digits.data(), digits.data() + digits.size(), header_.version);
  if (digits.empty() || parsed.ec != std::errc() || parsed.ptr != digits.data() + digits.size()) {
    return NotRdb("It begins with \"" + Printable(header) + "\".");
  }
  if (!IsSupportedVersion(header_.version) || IsValkey(header_.version) != header_.valkey) {
    return Error{ErrorCode::kUnsupported,
                 "unsupported RDB version " + std::to_string(header_.version) + " of a file",
                 "It begins with \"" + Printable(header) + "\". " + kVersionsRead,
                 {}};
  }
  return {};
}

Result<bool> FileReader::Next() {
  Result<bool> advanced = Advance();
  if (!advanced.ok()) return WithContext(advanced.error());
  return advanced;
}

Result<bool> FileReader::Advance() {
  key_ = FileKey();
  size_hint_.reset();
  for (;;) {
    uint8_t code = 0;
    bool is_code = true;
    PRM_RETURN_IF_ERROR(reader_.ReadByte(code));
    if (code == kEnd) {
      PRM_RETURN_IF_ERROR(ReadEnd());
      return false;
    }
    PRM_RETURN_IF_ERROR(ReadCode(code, is_code));
    if (is_code) continue;
    PRM_RETURN_IF_ERROR(ReadKey(code));
    return true;
  }
}

// Reads the data of an opcode; is_code becomes false if the byte is not an opcode but a type.
Status FileReader::ReadCode(uint8_t code, bool& is_code) {
  uint64_t length = 0;
  uint32_t seconds = 0;
  uint64_t milliseconds = 0;
  switch (code) {
    case kSelectDb:
      PRM_RETURN_IF_ERROR(ReadLength(reader_, length));
      if (length > static_cast<uint64_t>(std::numeric_limits<int>::max())) {
        return reader_.Corrupt("impossible database number");
      }
      db_ = static_cast<int>(length);
      size_hint_.reset();
      return {};
    case kExpirySeconds:
      PRM_RETURN_IF_ERROR(reader_.ReadLittleEndian(seconds));
      key_.expires_at_ms = int64_t{static_cast<int32_t>(seconds)} * 1000;
      return {};
    case kExpiryMs:
      PRM_RETURN_IF_ERROR(reader_.ReadLittleEndian(milliseconds));
      key_.expires_at_ms = static_cast<int64_t>(milliseconds);
      return {};
    case kFrequency:
      return reader_.ReadByte(key_.frequency.emplace());
    case kIdle:
      return ReadLength(reader_, key_.idle_seconds.emplace());
    case kResizeDb:  // keys, and those of them that expire
      PRM_RETURN_IF_ERROR(ReadLength(reader_, size_hint_.emplace()));
      return ReadLength(reader_, length);
    case kSlotInfo:
      for (int i = 0; i < 3; ++i) PRM_RETURN_IF_ERROR(ReadLength(reader_, length));
      return {};
    case kAux:
      return ReadAux();
    case kModuleAux:
      return ReadModuleAux();
    case kFunction2:
      ++notes_.functions;
      return SkipString(reader_);
    case kFunctionDraft:
      return Error{ErrorCode::kUnsupported,
                   "unsupported code 246 of RDB version " + std::to_string(header_.version) + " at byte " +
                       std::to_string(reader_.offset() - 1),
                   "It begins a function in the form of Redis 7.0 release candidates.",
                   {}};
    case kRamLru:
      if (!header_.valkey) return ReadLength(reader_, length);
      break;
    case kTemplate:
      if (HasHashTemplates(header_.version)) return templates_.Read(reader_);
      break;
    case kSlotImport:
      static_assert(kSlotImport == kKeyMetadata);
      if (header_.valkey) return ReadSlotImport();
      if (HasKeyMetadata(header_.version)) return SkipKeyMetadata(reader_);
      break;
    default:
      break;
  }
  is_code = false;
  return {};
}

Status FileReader::ReadAux() {
  std::string name_scratch;
  std::string value_scratch;
  Bytes name;
  Bytes value;
  PRM_RETURN_IF_ERROR(ReadString(reader_, name_scratch, name));
  PRM_RETURN_IF_ERROR(ReadString(reader_, value_scratch, value));
  // Redis before 7.0 keeps scripts in "lua": there may be many.
  std::string text = Printable(name, kAuxLimit);
  if (notes_.aux.size() < kMostNotes || notes_.aux.count(text) > 0)
    notes_.aux[std::move(text)] = Printable(value, kAuxLimit);
  return {};
}

Status FileReader::ReadModuleAux() {
  uint64_t id = 0;
  uint64_t part = 0;
  uint64_t when = 0;
  PRM_RETURN_IF_ERROR(ReadLength(reader_, id));
  PRM_RETURN_IF_ERROR(ReadLength(reader_, part));
  if (part != kUnsignedPart) return reader_.Corrupt("a module's part has no time");
  PRM_RETURN_IF_ERROR(ReadLength(reader_, when));
  const std::string name = ModuleTypeName(id);
  const bool is_noted = notes_.modules.size() < kMostNotes || notes_.modules.count(name) > 0;
  ++notes_.modules[is_noted ? name : "(others)"];
  return SkipModuleParts(reader_);
}

// Slots that were being imported: a name, and pairs of first and last slot.
Status FileReader::ReadSlotImport() {
  uint64_t ranges = 0;
  uint64_t slot = 0;
  PRM_RETURN_IF_ERROR(SkipString(reader_));
  PRM_RETURN_IF_ERROR(ReadLength(reader_, ranges));
  for (uint64_t i = 0; i < ranges; ++i) {
    PRM_RETURN_IF_ERROR(ReadLength(reader_, slot));
    PRM_RETURN_IF_ERROR(ReadLength(reader_, slot));
  }
  return {};
}

Status FileReader::ReadKey(uint8_t type) {
  // An unknown type is followed by a key as well if Redis keeps to its format, so try to read it for the
  // message.
  std::string scratch;
  Bytes name;
  const uint64_t offset = reader_.offset() - 1;
  const Status named = ReadString(reader_, scratch, name);
  if (named.ok()) {
    key_.name = name;
    key_.db = db_;
    in_key_ = true;
  }
  const Result<ObjectType> found = FindObjectType(type, header_.version);
  if (!found.ok()) {
    Error error = found.error();
    error.message += " at byte " + std::to_string(offset);
    const auto dragonfly = notes_.aux.find("df-ver");
    if (dragonfly != notes_.aux.end()) error.detail = "The file is of Dragonfly " + dragonfly->second + ".";
    return error;
  }
  key_.type = found.value();
  return named;
}

Status FileReader::ReadEnd() {
  if (header_.version < kFirstWithChecksum) return {};
  PRM_RETURN_IF_ERROR(reader_.Settle());
  const uint64_t computed = stream_.crc();
  const uint64_t offset = reader_.offset();
  uint64_t stated = 0;
  PRM_RETURN_IF_ERROR(reader_.ReadLittleEndian(stated));
  if (stated == kNotComputed) return {};
  notes_.checksum = stated == computed;
  if (stated == computed) return {};
  return Error{
      ErrorCode::kCorruptData,
      "corrupt RDB file: the checksum at byte " + std::to_string(offset) +
          " is not that of the bytes before it",
      {},
      "redis-check-rdb may say more. Some value before it is damaged: take another copy of the file."};
}

Status FileReader::DecodeValue(ValueVisitor& visitor) {
  const Layout layout = key_.type.layout;
  return EndValue(RefersToTemplate(layout) ? DecodeTemplateRef(layout, templates_, reader_, visitor)
                                           : DecodeObject(layout, reader_, visitor));
}

Status FileReader::SkipValue() {
  const Layout layout = key_.type.layout;
  return EndValue(RefersToTemplate(layout) ? SkipTemplateRef(layout, templates_, reader_)
                                           : SkipObject(layout, reader_));
}

Status FileReader::TakePayload(size_t limit, std::string& payload, uint64_t& size) {
  if (RefersToTemplate(key_.type.layout)) return EncodePayload(limit, payload, size);
  PRM_RETURN_IF_ERROR(TakeObject(limit, payload, size));
  if (!payload.empty()) AppendDumpTrailer(header_.version, payload);
  return {};
}

Status FileReader::TakeValue(size_t limit, size_t most, Taken& taken) {
  taken.plain = false;
  taken.large.reset();
  if (RefersToTemplate(key_.type.layout)) return EncodePayload(limit, taken.payload, taken.size);
  if (key_.type.value != ValueType::kString) return TakeCollection(limit, taken);
  PRM_RETURN_IF_ERROR(TakeObject(limit, object_, taken.size));
  // Compressed or not, a short string takes little more room than itself.
  std::string& payload = taken.payload;
  if (!object_.empty() && object_.size() <= most + kMostStringOverhead) {
    payload.clear();
    StringTaker taker(payload);
    ByteReader object(Bytes(object_).substr(1));
    taken.plain = DecodeObject(key_.type.layout, object, taker).ok() && object.AtEnd() && !payload.empty() &&
                  payload.size() <= most;
    if (taken.plain) return {};
  }
  payload = std::exchange(object_, {});
  if (!payload.empty()) AppendDumpTrailer(header_.version, payload);
  return {};
}

Status FileReader::TakeCollection(size_t limit, Taken& taken) {
  PRM_RETURN_IF_ERROR(reader_.Settle());
  const uint64_t begin = stream_.position();
  PRM_RETURN_IF_ERROR(TakeObject(std::min(limit, kLargePayload), taken.payload, taken.size));
  if (!taken.payload.empty()) {
    AppendDumpTrailer(header_.version, taken.payload);
  } else if (taken.size <= limit) {
    const std::shared_ptr<ByteSource> unowned(std::shared_ptr<ByteSource>(), &source_);
    auto large = LargePayload::Make(std::string(1, static_cast<char>(key_.type.number)), unowned, begin,
                                    stream_.position() - begin, header_.version);
    if (!large.ok()) return WithContext(large.error());
    taken.large = std::move(large.value());
  }
  return {};
}

// The type of the value and its bytes in the file, as a payload begins.
Status FileReader::TakeObject(size_t limit, std::string& payload, uint64_t& size) {
  payload.assign(1, static_cast<char>(key_.type.number));
  PRM_RETURN_IF_ERROR(reader_.Settle());
  const uint64_t begin = stream_.position();
  stream_.CopyTo(&payload, limit);
  const Status status = SkipValue();
  stream_.CopyTo(nullptr, 0);
  PRM_RETURN_IF_ERROR(status);
  size = stream_.position() - begin + kDumpFrameSize;
  if (size > limit) std::string().swap(payload);
  return {};
}

// The payload of a value that refers to a template of its file.
Status FileReader::EncodePayload(size_t limit, std::string& payload, uint64_t& size) {
  HashTaker taker(limit);
  PRM_RETURN_IF_ERROR(DecodeValue(taker));
  payload.clear();
  size = taker.size;
  if (size <= limit) payload = taker.encoder.Finish();
  if (size <= limit) size = payload.size();
  return {};
}

Status FileReader::EndValue(Status status) {
  if (status.ok()) status = reader_.Settle();
  if (!status.ok()) return WithContext(status.error());
  in_key_ = false;
  position_ = {stream_.position(), stream_.crc(), db_};
  return {};
}

Error FileReader::WithContext(Error error) const {
  std::string where = "RDB version " + std::to_string(header_.version) +
                      (header_.valkey ? " of Valkey" : "") + ", database " + std::to_string(db_);
  if (in_key_) {
    where += ", key \"" + Printable(key_.name) + "\"";
    if (key_.type.name != nullptr) {
      where += ", type " + std::to_string(key_.type.number) + " (" + key_.type.name + ")";
    }
  }
  error.detail = where + "." + (error.detail.empty() ? "" : " ") + error.detail;
  return error;
}

}  // namespace prm::rdb
