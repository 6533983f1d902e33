// The arguments of SQL functions as C++ values.
#pragma once

#include "pg/memory.h"

namespace prm::pg {

inline std::optional<std::string> OptionalTextArgument(FunctionCallInfo fcinfo, int n) {
  if (PG_ARGISNULL(n)) return std::nullopt;
  return std::string(DatumBytes(PG_GETARG_DATUM(n)));
}

// Errors: 22004 for NULL, with the argument's name.
inline std::string TextArgument(FunctionCallInfo fcinfo, int n, const char *name) {
  std::optional<std::string> text = OptionalTextArgument(fcinfo, n);
  if (!text) throw Failure(ERRCODE_NULL_VALUE_NOT_ALLOWED, std::string(name) + " must not be NULL");
  return *text;
}

// Checks that a text is a valid keyword. Errors: 22023, listing the valid ones.
inline void CheckKeyword(const std::string &value, const char *name,
                         std::initializer_list<const char *> valid) {
  std::string list;
  for (const char *word : valid) {
    if (value == word) return;
    list += (list.empty() ? "" : ", ") + std::string(word);
  }
  throw Failure(ERRCODE_INVALID_PARAMETER_VALUE, "invalid " + std::string(name) + " \"" + value + "\"", "",
                "Valid values are " + list + ".");
}

inline std::optional<std::vector<std::string>> OptionalTextArrayArgument(FunctionCallInfo fcinfo, int n) {
  if (PG_ARGISNULL(n)) return std::nullopt;
  Datum *elements = nullptr;
  bool *nulls = nullptr;
  int count = 0;
  Datum array = PG_GETARG_DATUM(n);
  Call([&] {
    deconstruct_array(DatumGetArrayTypeP(array), TEXTOID, -1, false, TYPALIGN_INT, &elements, &nulls, &count);
  });
  std::vector<std::string> items;
  for (int i = 0; i < count; ++i)
    if (!nulls[i]) items.emplace_back(DatumBytes(elements[i]));
  return items;
}

inline std::optional<std::vector<int>> OptionalInt4ArrayArgument(FunctionCallInfo fcinfo, int n) {
  if (PG_ARGISNULL(n)) return std::nullopt;
  Datum *elements = nullptr;
  bool *nulls = nullptr;
  int count = 0;
  Datum array = PG_GETARG_DATUM(n);
  Call([&] {
    deconstruct_array(DatumGetArrayTypeP(array), INT4OID, 4, true, TYPALIGN_INT, &elements, &nulls, &count);
  });
  std::vector<int> items;
  for (int i = 0; i < count; ++i)
    if (!nulls[i]) items.push_back(DatumGetInt32(elements[i]));
  return items;
}

// Sends a message to the client and the log. Level: NOTICE, WARNING, INFO.
inline void Report(int level, const std::string &message, const std::string &detail = "",
                   const std::string &hint = "") {
  Call([&] {
    ereport(level, (errmsg_internal("%s", message.c_str()),
                    detail.empty() ? 0 : errdetail_internal("%s", detail.c_str()),
                    hint.empty() ? 0 : errhint("%s", hint.c_str())));
  });
}

}  // namespace prm::pg
