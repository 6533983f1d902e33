#include "rdb/value.h"

namespace prm::rdb {

const char* TypeName(ValueType type) {
  switch (type) {
    case ValueType::kString:
      return "string";
    case ValueType::kList:
      return "list";
    case ValueType::kSet:
      return "set";
    case ValueType::kZset:
      return "zset";
    case ValueType::kHash:
      return "hash";
    case ValueType::kStream:
      return "stream";
    case ValueType::kArray:
      return "array";
    case ValueType::kModule:
      return "module";
  }
  return "unknown";
}

}  // namespace prm::rdb
