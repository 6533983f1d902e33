// The counter of one user name, address or combination of them: how many logins failed, and when it locks.
//
// An attempt is reserved when it is checked and settled by its result. Until then it counts as a failure, so
// that parallel guesses cannot pass the threshold; an attempt that is never settled becomes one. Times are
// microseconds of one clock. Within a state they never run backwards, unless the clock was set back by more
// than a second: then the state moves with it. Whether a state is locked follows from the state and the rule
// alone: a changed rule applies to what was counted before.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

namespace prm {

// When failures are forgotten.
enum class CoolOffMode {
  kFixed,       // all of them, one window after the first
  kInactivity,  // all of them, one window after the last
  kRolling,     // each one window after itself; a lock lasts until fewer than the threshold are left
};

// `failures` failures lock for `cool_off`, counted from the last of them.
struct LockoutTier {
  int32_t failures;
  int64_t cool_off;
};

struct LockoutRule {
  CoolOffMode mode = CoolOffMode::kFixed;
  int64_t window = 0;
  int64_t pending_timeout = 0;  // after which a reserved attempt without a result is a failure
  bool extend_on_attempt = false;
  // Ascending, at least one; the first is the threshold. With several the failures outlive the lock, each
  // further one locks again, and they are forgotten one window after a lock. kRolling has one and ignores its
  // cool_off.
  std::vector<LockoutTier> tiers;

  int32_t threshold() const { return tiers.front().failures; }
  bool progressive() const { return tiers.size() > 1; }
};

// Trivially copyable, for shared memory and files; all zero is the state of an unknown login.
struct LockoutState {
  // Rolling windows are counted in steps of a fifteenth of the window: failures are forgotten up to that
  // much late, never early.
  static constexpr int kSteps = 15;

  int64_t clock;           // the latest time seen
  int64_t first;           // the failure that began the window
  int64_t last;            // the last failure, or the last attempt that extended the lock
  int64_t reserved_since;  // when `reserved` last was 0
  int64_t last_check;      // when the last attempt was reserved
  int32_t failures;
  int32_t reserved;
  uint16_t recent[kSteps + 1];  // kRolling: failures by step, the step of `last` first
};

struct LockoutStatus {
  bool locked;
  // The end of the lock; where reserved attempts leave no room, the latest time at which they count as
  // failures; otherwise 0.
  int64_t until;
  int32_t room;  // attempts that may be reserved now
};

// Advances the state to `now`: failures are forgotten, and attempts that waited too long for a result become
// failures; returns how many. The other functions take the state as of its last Advance.
int32_t Advance(const LockoutRule& rule, int64_t now, LockoutState* state);

LockoutStatus StatusOf(const LockoutRule& rule, const LockoutState& state);

// Reserves an attempt; StatusOf must have room for it.
void Reserve(LockoutState* state);

// The lock refused an attempt: extends the lock where the rule says so.
void Refuse(const LockoutRule& rule, LockoutState* state);

// An attempt has its result. `reserved_at`: the clock when it was reserved; none for an attempt that was not
// checked before. A failure counts once: not again where the attempt has timed out before, and not during a
// lock, which it may extend like any attempt that is refused. A success forgets the failures if `reset`,
// unless they have led to a lock. Returns whether a lock began.
bool Settle(const LockoutRule& rule, std::optional<int64_t> reserved_at, bool success, bool reset,
            LockoutState* state);

// Raises the state to at least `failures`, the last of them at `last`, as another system counted. `last` may
// be after the state's clock only for a lock that is to last until then and beyond.
void ImportFailures(const LockoutRule& rule, int32_t failures, int64_t last, LockoutState* state);

// Failures within a window that ends now, of a rule that is kRolling and whose window is not shorter.
struct WindowCount {
  int32_t failures;
  int64_t until;  // when fewer than the threshold will be left; 0 when there are fewer
};
WindowCount CountWithin(const LockoutRule& rule, const LockoutState& state, int64_t window,
                        int32_t threshold);

// When the state will be equivalent to an empty one if no further attempt is made.
int64_t ForgottenAt(const LockoutRule& rule, const LockoutState& state);

}  // namespace prm
