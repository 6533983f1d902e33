#include "rdb/object_type.h"

#include <cstddef>
#include <string>

#include "rdb/version.h"

namespace prm::rdb {

namespace {

constexpr ObjectType kTypes[] = {
    {0, "STRING", ValueType::kString, Layout::kString, 1},
    {1, "LIST", ValueType::kList, Layout::kList, 1},
    {2, "SET", ValueType::kSet, Layout::kSet, 1},
    {3, "ZSET", ValueType::kZset, Layout::kZsetOfTexts, 1},
    {4, "HASH", ValueType::kHash, Layout::kHash, 1},
    {5, "ZSET_2", ValueType::kZset, Layout::kZset, 1},
    {7, "MODULE_2", ValueType::kModule, Layout::kModule, 1},
    {9, "HASH_ZIPMAP", ValueType::kHash, Layout::kHashZipmap, 1},
    {10, "LIST_ZIPLIST", ValueType::kList, Layout::kListZiplist, 1},
    {11, "SET_INTSET", ValueType::kSet, Layout::kSetIntset, 1},
    {12, "ZSET_ZIPLIST", ValueType::kZset, Layout::kZsetZiplist, 1},
    {13, "HASH_ZIPLIST", ValueType::kHash, Layout::kHashZiplist, 1},
    {14, "LIST_QUICKLIST", ValueType::kList, Layout::kListOfZiplists, 1},
    {15, "STREAM_LISTPACKS", ValueType::kStream, Layout::kStream, 1},
    {16, "HASH_LISTPACK", ValueType::kHash, Layout::kHashListpack, 1},
    {17, "ZSET_LISTPACK", ValueType::kZset, Layout::kZsetListpack, 1},
    {18, "LIST_QUICKLIST_2", ValueType::kList, Layout::kListOfNodes, 1},
    {19, "STREAM_LISTPACKS_2", ValueType::kStream, Layout::kStream2, 1},
    {20, "SET_LISTPACK", ValueType::kSet, Layout::kSetListpack, 1},
    {21, "STREAM_LISTPACKS_3", ValueType::kStream, Layout::kStream3, 1},
};

constexpr ObjectType kRedisTypes[] = {
    {22, "HASH_METADATA_PRE_GA", ValueType::kHash, Layout::kExpiringHashDraft, 12},
    {23, "HASH_LISTPACK_EX_PRE_GA", ValueType::kHash, Layout::kExpiringListpackDraft, 12},
    {24, "HASH_METADATA", ValueType::kHash, Layout::kExpiringHash, 12},
    {25, "HASH_LISTPACK_EX", ValueType::kHash, Layout::kExpiringListpack, 12},
    {26, "STREAM_LISTPACKS_4", ValueType::kStream, Layout::kStream4, 13},
    {27, "STREAM_LISTPACKS_5", ValueType::kStream, Layout::kStream5, 14},
    {28, "ARRAY", ValueType::kArray, Layout::kArray, 14},
    {29, "HASH_TMPL_LP", ValueType::kHash, Layout::kTemplateListpack, 15},
    {30, "HASH_TMPL_LP_REF", ValueType::kHash, Layout::kTemplateListpackRef, 15},
    {31, "HASH_TMPL_ARRAY", ValueType::kHash, Layout::kTemplateArray, 15},
    {32, "HASH_TMPL_ARRAY_REF", ValueType::kHash, Layout::kTemplateArrayRef, 15},
};

constexpr ObjectType kValkeyTypes[] = {
    {22, "HASH_2", ValueType::kHash, Layout::kValkeyExpiringHash, 80},
};

// Types with a known name that cannot be read.
constexpr uint8_t kModule1 = 6;
constexpr uint8_t kValkeyPathHash = 23;

template <size_t kCount>
const ObjectType* Find(const ObjectType (&types)[kCount], uint8_t number, unsigned version) {
  for (const ObjectType& type : types)
    if (type.number == number && type.since <= version) return &type;
  return nullptr;
}

const char* WhyUnsupported(uint8_t number, unsigned version) {
  if (number == kModule1) {
    return "It is a module's value in the form of Redis 4.0 release candidates, which only the module itself "
           "can read.";
  }
  if (number == kValkeyPathHash && IsValkey(version)) return "It is a PATH_HASH of Valkey 9.2.";
  return "";
}

}  // namespace

Result<ObjectType> FindObjectType(uint8_t number, unsigned version) {
  const ObjectType* type = Find(kTypes, number, version);
  if (type == nullptr) {
    type = IsValkey(version) ? Find(kValkeyTypes, number, version) : Find(kRedisTypes, number, version);
  }
  if (type != nullptr) return *type;
  return Error{
      ErrorCode::kUnsupported,
      "unsupported value type " + std::to_string(number) + " of RDB version " + std::to_string(version),
      WhyUnsupported(number, version),
      {}};
}

}  // namespace prm::rdb
