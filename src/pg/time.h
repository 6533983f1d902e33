// Times and durations. PostgreSQL counts microseconds since 2000-01-01 UTC; Redis, columns of numbers and the
// system's clock count from 1970. What does not fit a result becomes its nearest finite value.
#pragma once

#include <limits>

#include "pg/guard.h"

namespace prm::pg {

constexpr int64 kMicrosecondNs = 1000;
constexpr int64 kMillisecondNs = 1000000;
constexpr int64 kSecondNs = INT64CONST(1000000000);

// 2000-01-01 UTC since 1970.
constexpr int64 kEpochSeconds = int64{POSTGRES_EPOCH_JDATE - UNIX_EPOCH_JDATE} * SECS_PER_DAY;
constexpr int64 kEpochUs = kEpochSeconds * USECS_PER_SEC;

constexpr int64 ClampToInt64(__int128 value) {
  return static_cast<int64>(
      std::clamp<__int128>(value, std::numeric_limits<int64>::min(), std::numeric_limits<int64>::max()));
}

constexpr int64 DivideDown(int64 value, int64 divisor) {
  return value / divisor - (value % divisor < 0 ? 1 : 0);
}
constexpr int64 DivideUp(int64 value, int64 divisor) {
  return value / divisor + (value % divisor > 0 ? 1 : 0);
}

// From `count` units since 1970, each of this many microseconds.
constexpr TimestampTz FromUnix(int64 count, int64 unit_us) {
  return static_cast<TimestampTz>(
      std::clamp<__int128>(__int128{count} * unit_us - kEpochUs, MIN_TIMESTAMP, END_TIMESTAMP - 1));
}
constexpr TimestampTz FromUnixSeconds(int64 seconds) { return FromUnix(seconds, USECS_PER_SEC); }
constexpr TimestampTz FromUnixMs(int64 milliseconds) { return FromUnix(milliseconds, 1000); }
constexpr TimestampTz FromUnixNsUp(int64 nanoseconds) {
  return FromUnix(DivideUp(nanoseconds, kMicrosecondNs), 1);
}

// Since 1970. Times that do not fit, such as infinite ones, become the ends of int64.
constexpr int64 UnixUs(TimestampTz time) { return ClampToInt64(__int128{time} + kEpochUs); }
// In two parts: microseconds since 1970 of the last 29 years that a timestamp has do not fit.
constexpr int64 UnixMs(TimestampTz time) { return DivideDown(time, 1000) + kEpochSeconds * 1000; }
constexpr int64 UnixNs(TimestampTz time) {
  return ClampToInt64((__int128{time} + kEpochUs) * kMicrosecondNs);
}

inline int64 NowMs() { return UnixMs(GetCurrentTimestamp()); }

// The length of an interval in microseconds as extract(epoch) has it: a year is 365.25 days, a month 30 days.
// An infinite one becomes an end of int64.
constexpr int64 IntervalUs(const Interval &interval) {
  constexpr __int128 kYearUs = __int128{1461} * USECS_PER_DAY / 4;
  __int128 const years = interval.month / MONTHS_PER_YEAR, months = interval.month % MONTHS_PER_YEAR;
  return ClampToInt64(years * kYearUs + (months * DAYS_PER_MONTH + interval.day) * USECS_PER_DAY +
                      interval.time);
}
inline int64 IntervalUs(Datum interval) { return IntervalUs(*DatumGetIntervalP(interval)); }
inline int64 IntervalNs(Datum interval) {
  return ClampToInt64(__int128{IntervalUs(interval)} * kMicrosecondNs);
}

// An interval of hours and less.
constexpr Interval IntervalOfUs(int64 microseconds) { return Interval{microseconds, 0, 0}; }

// IntervalOfUs in the current memory context. Errors: 53200.
inline Datum IntervalDatum(int64 microseconds) {
  return Call([&] {
    auto *interval = static_cast<Interval *>(palloc(sizeof(Interval)));
    *interval = IntervalOfUs(microseconds);
    return IntervalPGetDatum(interval);
  });
}

constexpr double SecondsOfUs(int64 microseconds) {
  return static_cast<double>(microseconds) / static_cast<double>(USECS_PER_SEC);
}

}  // namespace prm::pg
