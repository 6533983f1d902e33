#include "pg/error.h"

namespace prm::pg {

int Failure::SqlState(ErrorCode code) noexcept {
  switch (code) {
    case ErrorCode::kInvalidArgument:
      return ERRCODE_INVALID_PARAMETER_VALUE;
    case ErrorCode::kConnectionFailure:
      return ERRCODE_CONNECTION_FAILURE;
    case ErrorCode::kTimeout:
      return ERRCODE_CONNECTION_EXCEPTION;
    case ErrorCode::kAuthFailure:
      return ERRCODE_INVALID_AUTHORIZATION_SPECIFICATION;
    case ErrorCode::kPermissionDenied:
      return ERRCODE_INSUFFICIENT_PRIVILEGE;
    case ErrorCode::kUnavailable:
    case ErrorCode::kMoved:
      return ERRCODE_CANNOT_CONNECT_NOW;
    case ErrorCode::kProtocol:
      return ERRCODE_PROTOCOL_VIOLATION;
    case ErrorCode::kServerError:
      return ERRCODE_EXTERNAL_ROUTINE_EXCEPTION;
    case ErrorCode::kCorruptData:
      return ERRCODE_DATA_CORRUPTED;
    case ErrorCode::kUnsupported:
      return ERRCODE_FEATURE_NOT_SUPPORTED;
    case ErrorCode::kTooLarge:
      return ERRCODE_PROGRAM_LIMIT_EXCEEDED;
    case ErrorCode::kLowMemory:
      return ERRCODE_INSUFFICIENT_RESOURCES;
  }
  return ERRCODE_INTERNAL_ERROR;
}

bool IsDataError(int sqlstate) {
  int category = ERRCODE_TO_CATEGORY(sqlstate);
  return category == ERRCODE_DATA_EXCEPTION || category == ERRCODE_INTEGRITY_CONSTRAINT_VIOLATION ||
         category == ERRCODE_PROGRAM_LIMIT_EXCEEDED || sqlstate == ERRCODE_CARDINALITY_VIOLATION ||
         sqlstate == ERRCODE_RAISE_EXCEPTION;
}

std::string SqlStateText(int sqlstate) { return unpack_sql_state(sqlstate); }

int SqlStateCode(const std::string &text) {
  if (text.size() != 5) return ERRCODE_INTERNAL_ERROR;
  return MAKE_SQLSTATE(text[0], text[1], text[2], text[3], text[4]);
}

}  // namespace prm::pg
