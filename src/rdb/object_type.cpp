#include "rdb/object_type.h"

#include <string>

#include "rdb/version.h"

namespace prm::rdb {

namespace {

constexpr ObjectType kTypes[] = {
    {0, "STRING", ValueType::kString, Layout::kString},
    {1, "LIST", ValueType::kList, Layout::kList},
    {2, "SET", ValueType::kSet, Layout::kSet},
    {3, "ZSET", ValueType::kZset, Layout::kZsetOfTexts},
    {4, "HASH", ValueType::kHash, Layout::kHash},
    {5, "ZSET_2", ValueType::kZset, Layout::kZset},
    {7, "MODULE_2", ValueType::kModule, Layout::kModule},
    {9, "HASH_ZIPMAP", ValueType::kHash, Layout::kHashZipmap},
    {10, "LIST_ZIPLIST", ValueType::kList, Layout::kListZiplist},
    {11, "SET_INTSET", ValueType::kSet, Layout::kSetIntset},
    {12, "ZSET_ZIPLIST", ValueType::kZset, Layout::kZsetZiplist},
    {13, "HASH_ZIPLIST", ValueType::kHash, Layout::kHashZiplist},
    {14, "LIST_QUICKLIST", ValueType::kList, Layout::kListOfZiplists},
    {15, "STREAM_LISTPACKS", ValueType::kStream, Layout::kStream},
    {16, "HASH_LISTPACK", ValueType::kHash, Layout::kHashListpack},
    {17, "ZSET_LISTPACK", ValueType::kZset, Layout::kZsetListpack},
    {18, "LIST_QUICKLIST_2", ValueType::kList, Layout::kListOfNodes},
    {19, "STREAM_LISTPACKS_2", ValueType::kStream, Layout::kStream2},
    {20, "SET_LISTPACK", ValueType::kSet, Layout::kSetListpack},
    {21, "STREAM_LISTPACKS_3", ValueType::kStream, Layout::kStream3},
};

constexpr ObjectType kRedisTypes[] = {
    {22, "HASH_METADATA_PRE_GA", ValueType::kHash, Layout::kExpiringHashDraft},
    {23, "HASH_LISTPACK_EX_PRE_GA", ValueType::kHash, Layout::kExpiringListpackDraft},
    {24, "HASH_METADATA", ValueType::kHash, Layout::kExpiringHash},
    {25, "HASH_LISTPACK_EX", ValueType::kHash, Layout::kExpiringListpack},
};

constexpr ObjectType kValkeyTypes[] = {
    {22, "HASH_2", ValueType::kHash, Layout::kValkeyExpiringHash},
};

// Its bytes cannot even be skipped without the module.
constexpr uint8_t kModule1 = 6;

}  // namespace

Result<ObjectType> FindObjectType(uint8_t number, unsigned version) {
  for (const ObjectType& type : kTypes)
    if (type.number == number) return type;
  if (IsValkey(version)) {
    for (const ObjectType& type : kValkeyTypes)
      if (type.number == number) return type;
  } else {
    for (const ObjectType& type : kRedisTypes)
      if (type.number == number) return type;
  }
  return Error{
      ErrorCode::kUnsupported,
      "unsupported value type " + std::to_string(number) + " of RDB version " + std::to_string(version),
      number == kModule1 ? "It is a module's value in the form of Redis 4.0 release candidates, which only "
                           "the module itself can read."
                         : "",
      {}};
}

}  // namespace prm::rdb
