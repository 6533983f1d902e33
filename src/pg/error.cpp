#include "pg/error.h"

#include <cstring>

#include "pg/guard.h"

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

namespace {

// The codes that PostgreSQL 15 to 20 define (errcodes.txt) in classes that mean neither a fault of a row nor
// one of the server.
constexpr char kUnclearCodes[] =
    "00000 01000 01003 01004 01006 01007 01008 0100C 01P01 02000 02001 03000 09000 0A000 0B000 0F000 0F001 "
    "0L000 0LP01 0P000 0Z000 0Z002 10608 20000 24000 26000 27000 28000 28P01 2B000 2BP01 2D000 2F000 2F002 "
    "2F003 2F004 2F005 34000 39000 39001 39004 39P01 39P02 39P03 3B000 3B001 3D000 3F000 42000 42501 42601 "
    "42602 42611 42622 42701 42702 42703 42704 42710 42712 42723 42725 42803 42804 42809 42830 42846 42883 "
    "428C9 42939 42P01 42P02 42P03 42P04 42P05 42P06 42P07 42P08 42P09 42P10 42P11 42P12 42P13 42P14 42P15 "
    "42P16 42P17 42P18 42P19 42P20 42P21 42P22 55000 55006 55P02 55P04 72000 F0000 F0001 HV000 HV001 HV002 "
    "HV004 HV005 HV006 HV007 HV008 HV009 HV00A HV00B HV00C HV00D HV00J HV00K HV00L HV00M HV00N HV00P HV00Q "
    "HV00R HV010 HV014 HV021 HV024 HV090 HV091 ";

}  // namespace

std::string Problem::SqlState() const { return sqlstate == 0 ? std::string() : SqlStateText(sqlstate); }

bool Problem::retryable() const {
  std::string const category = SqlState().substr(0, 2);
  return category == "08" || category == "40" || category == "53" ||
         (category == "55" && sqlstate != ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE) ||
         (category == "57" && !cancelled());
}

Problem CurrentProblem() {
  try {
    throw;
  } catch (const PgError &error) {
    return {error.sqlstate(), error.what()};
  } catch (const Failure &failure) {
    return {failure.sqlstate(), failure.message()};
  } catch (const std::bad_alloc &) {
    return {ERRCODE_OUT_OF_MEMORY, "out of memory"};
  } catch (const std::exception &error) {
    return {ERRCODE_INTERNAL_ERROR, std::string("unexpected C++ exception: ") + error.what()};
  } catch (...) {
    return {ERRCODE_INTERNAL_ERROR, "unexpected C++ exception of unknown type"};
  }
}

bool IsTransient(int sqlstate) {
  return ERRCODE_TO_CATEGORY(sqlstate) == ERRCODE_TRANSACTION_ROLLBACK ||
         sqlstate == ERRCODE_LOCK_NOT_AVAILABLE;
}

bool IsForeignKeyViolation(int sqlstate) {
  return sqlstate == ERRCODE_FOREIGN_KEY_VIOLATION || sqlstate == ERRCODE_RESTRICT_VIOLATION;
}

Fault FaultOf(int sqlstate) {
  std::string const state = SqlStateText(sqlstate);
  std::string const category = state.substr(0, 2);
  for (const char *of_rows : {"21", "22", "23", "38", "44", "54", "P0"})
    if (category == of_rows) return Fault::kRow;
  for (const char *of_server : {"08", "25", "40", "53", "57", "58", "XX"})
    if (category == of_server) return Fault::kServer;
  if (sqlstate == ERRCODE_LOCK_NOT_AVAILABLE) return Fault::kServer;
  return strstr(kUnclearCodes, (state + " ").c_str()) != nullptr ? Fault::kUnclear : Fault::kRow;
}

char *PgError::Keep(const std::string &text) const {
  MemoryContext const context = data()->assoc_context;
  return Call([&] { return MemoryContextStrdup(context, text.c_str()); });
}

std::string SqlStateText(int sqlstate) { return unpack_sql_state(sqlstate); }

int SqlStateCode(const std::string &text) {
  if (text.size() != 5) return ERRCODE_INTERNAL_ERROR;
  return MAKE_SQLSTATE(text[0], text[1], text[2], text[3], text[4]);
}

}  // namespace prm::pg
