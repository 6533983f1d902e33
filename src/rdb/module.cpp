#include "rdb/module.h"

#include "rdb/encoded_string.h"

namespace prm::rdb {

namespace {

constexpr char kNameCharacters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
constexpr int kNameLength = 9;
constexpr int kBitsOfCharacter = 6;
constexpr int kBitsOfVersion = 10;  // the lowest bits: the version of the module's encoding

constexpr uint64_t kOwnerSize = 4;

enum Part : uint64_t { kEnd = 0, kSigned = 1, kUnsigned = 2, kFloat = 3, kDouble = 4, kString = 5 };

}  // namespace

std::string ModuleTypeName(uint64_t id) {
  std::string name(kNameLength, ' ');
  id >>= kBitsOfVersion;
  for (int i = kNameLength - 1; i >= 0; --i, id >>= kBitsOfCharacter) {
    name[static_cast<size_t>(i)] = kNameCharacters[id & ((1u << kBitsOfCharacter) - 1)];
  }
  return name;
}

Status SkipModuleParts(ByteReader& reader) {
  for (;;) {
    uint64_t part = 0;
    uint64_t integer = 0;
    PRM_RETURN_IF_ERROR(ReadLength(reader, part));
    switch (part) {
      case kEnd:
        return {};
      case kSigned:
      case kUnsigned:
        PRM_RETURN_IF_ERROR(ReadLength(reader, integer));
        break;
      case kFloat:
        PRM_RETURN_IF_ERROR(reader.Skip(sizeof(float)));
        break;
      case kDouble:
        PRM_RETURN_IF_ERROR(reader.Skip(sizeof(double)));
        break;
      case kString:
        PRM_RETURN_IF_ERROR(SkipString(reader));
        break;
      default:
        return reader.Corrupt("unknown part " + std::to_string(part) + " of a module's value");
    }
  }
}

Status SkipKeyMetadata(ByteReader& reader) {
  uint64_t count = 0;
  PRM_RETURN_IF_ERROR(ReadLength(reader, count));
  for (uint64_t i = 0; i < count; ++i) {
    PRM_RETURN_IF_ERROR(reader.Skip(kOwnerSize));
    PRM_RETURN_IF_ERROR(SkipModuleParts(reader));
  }
  return {};
}

}  // namespace prm::rdb
