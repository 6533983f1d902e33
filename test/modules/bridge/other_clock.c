// Preloaded into a server: its time of day is $PRM_CLOCK_AHEAD_MS milliseconds ahead. Clocks that measure how long
// something takes are as they were.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <sys/time.h>
#include <time.h>

int clock_gettime(clockid_t clock, struct timespec *now) {
  int (*next)(clockid_t, struct timespec *) = dlsym(RTLD_NEXT, "clock_gettime");
  const char *ahead_ms = getenv("PRM_CLOCK_AHEAD_MS");
  long long us;
  int result = next(clock, now);
  if (result != 0 || ahead_ms == NULL || (clock != CLOCK_REALTIME && clock != CLOCK_REALTIME_COARSE)) return result;
  us = now->tv_sec * 1000000LL + now->tv_nsec / 1000 + atoll(ahead_ms) * 1000;
  now->tv_nsec = us % 1000000 * 1000 + now->tv_nsec % 1000;
  now->tv_sec = us / 1000000;
  return 0;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone) {
  struct timespec time;
  (void)zone;
  if (clock_gettime(CLOCK_REALTIME, &time) != 0) return -1;
  now->tv_sec = time.tv_sec;
  now->tv_usec = time.tv_nsec / 1000;
  return 0;
}

time_t time(time_t *seconds) {
  struct timespec now;
  if (clock_gettime(CLOCK_REALTIME, &now) != 0) return (time_t)-1;
  if (seconds != NULL) *seconds = now.tv_sec;
  return now.tv_sec;
}
