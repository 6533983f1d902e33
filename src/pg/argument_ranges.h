// The ranges of arguments that are lengths of time or whole numbers: what is outside is refused in one way.
#pragma once

#include "pg/arguments.h"
#include "pg/time.h"

namespace prm::pg {

// A bound of a length of time, and how messages write it.
struct Duration {
  int64 us;
  const char *text;
};
constexpr Duration kNoTime{0, "0"};
constexpr Duration kMillisecond{1000, "1 ms"};
constexpr Duration kSecond{USECS_PER_SEC, "1 second"};
constexpr Duration kMinute{USECS_PER_MINUTE, "1 minute"};
constexpr Duration kDay{USECS_PER_DAY, "1 day"};
// Of what has no other bound: longer ones cannot be added to every time.
constexpr Duration kHundredYears{INT64CONST(36525) * USECS_PER_DAY, "100 years"};

static_assert(IntervalUs(Interval{0, 0, 1200}) == kHundredYears.us);
// An infinite interval, which PostgreSQL has from version 17 on, is longer or shorter than any bound.
static_assert(IntervalUs(Interval{INT64_MAX, INT32_MAX, INT32_MAX}) > kHundredYears.us);
static_assert(IntervalUs(Interval{INT64_MIN, INT32_MIN, INT32_MIN}) < 0);

[[noreturn]] inline void ThrowOutOfRange(const std::string &name, const std::string &least,
                                         const std::string &most, const std::string &hint = "") {
  throw Failure(ERRCODE_INVALID_PARAMETER_VALUE, name + " must be between " + least + " and " + most, "",
                hint);
}

// Checks a length of time in microseconds. Errors: 22023, with the bounds.
inline void CheckDuration(const char *name, int64 us, Duration least, Duration most = kHundredYears,
                          const char *hint = "") {
  if (us < least.us || us > most.us) ThrowOutOfRange(name, least.text, most.text, hint);
}

// An argument of type interval in microseconds; nothing for NULL. Errors: 22023, with the bounds.
inline std::optional<int64> OptionalDurationArgument(FunctionCallInfo fcinfo, int n, const char *name,
                                                     Duration least, Duration most = kHundredYears,
                                                     const char *hint = "") {
  if (PG_ARGISNULL(n)) return std::nullopt;
  int64 const us = IntervalUs(PG_GETARG_DATUM(n));
  CheckDuration(name, us, least, most, hint);
  return us;
}

// Errors: 22004 for NULL; 22023, with the bounds.
inline int64 DurationArgument(FunctionCallInfo fcinfo, int n, const char *name, Duration least,
                              Duration most = kHundredYears) {
  std::optional<int64> const us = OptionalDurationArgument(fcinfo, n, name, least, most);
  if (!us) throw Failure(ERRCODE_NULL_VALUE_NOT_ALLOWED, std::string(name) + " must not be NULL");
  return *us;
}

// Checks a whole number. Errors: 22023, with the bounds.
inline void CheckNumber(const char *name, int64 number, int64 least, int64 most) {
  if (number < least || number > most) ThrowOutOfRange(name, std::to_string(least), std::to_string(most));
}

// An argument of type integer. Errors: 22004 for NULL; 22023, with the bounds.
inline int IntegerArgument(FunctionCallInfo fcinfo, int n, const char *name, int least, int most) {
  if (PG_ARGISNULL(n)) throw Failure(ERRCODE_NULL_VALUE_NOT_ALLOWED, std::string(name) + " must not be NULL");
  CheckNumber(name, PG_GETARG_INT32(n), least, most);
  return PG_GETARG_INT32(n);
}

}  // namespace prm::pg
