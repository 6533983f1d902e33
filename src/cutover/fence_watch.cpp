#include "cutover/fence_watch.h"

#include "cutover/fenced_users.h"
#include "pg/arguments.h"
#include "pg/background.h"
#include "pg/session_lock.h"
#include "pg/spi.h"
#include "pg/wait.h"

namespace prm {

using pg::Failure;
using pg::Spi;

namespace {

constexpr int64 kLookEveryMs = 5000;
constexpr int64 kPauses = 10;  // live sync waits for masters that are away at most a tenth of the time

constexpr char kOtherRules[] = "Somebody has given it other rules since it was fenced.";
constexpr char kSelectors[] = "It has selectors, which may permit writes by themselves.";

const HeldUser *FindUser(const std::vector<HeldUser> &held, const FencedUser &user) {
  auto const found = std::find_if(held.begin(), held.end(), [&](const HeldUser &one) {
    return one.user.node == user.node && one.user.address == user.address && one.user.name == user.name;
  });
  return found == held.end() ? nullptr : &*found;
}

// The rules that a user of this name had before a fence.
std::string RulesBefore(const std::vector<HeldUser> &held, const FencedUser &user) {
  auto const found =
      std::find_if(held.begin(), held.end(), [&](const HeldUser &one) { return one.user.name == user.name; });
  return found == held.end() ? user.rules : found->user.rules;
}

void Tell(const FencedUser &user, const std::string &what, const std::string &detail) {
  pg::Report(WARNING, "user \"" + user.name + "\" of Redis at " + user.address + " " + what, detail,
             "SELECT * FROM redis_migrate.late_writes shows what was written meanwhile.");
}

// Notes why a user may write, if that is so, and of which process of the master that was seen. Tells it once.
void Note(const HeldUser &held, const std::string &run_id, const std::string &trouble) {
  if (held.trouble == trouble && held.user.run_id == run_id) return;
  HeldUser now = held;
  now.trouble = trouble;
  now.user.run_id = run_id;
  UpdateHeldUser(now);
  Spi::Commit();
  if (!trouble.empty() && held.trouble != trouble)
    Tell(held.user, "may write, although a cutover has fenced it", trouble);
}

// Whether the cutover still holds a user of this name.
bool IsHeld(const Migration &migration, const HeldUser &user) {
  std::vector<HeldUser> const held = FindHeldUsers(migration.name);
  return std::any_of(held.begin(), held.end(), [&](const HeldUser &one) {
    return one.cutover_id == user.cutover_id && one.user.name == user.user.name;
  });
}

// run_id: of the process of its master. What it has from now on is noted only once it has it.
void FenceAgain(Masters &masters, HeldUser held, const std::string &run_id) {
  held.user.run_id.clear();
  AddHeldUser(held);  // its rules, before they change
  Spi::Commit();
  std::vector<FencedUser> users = {held.user};
  try {
    masters.TakeWrite(users);
  } catch (const Failure &failure) {
    return Note(held, "", failure.message());
  }
  held.user = users[0];
  if (held.user.has_selectors) return Note(held, run_id, kSelectors);
  held.user.run_id = run_id;
  held.trouble.clear();
  UpdateHeldUser(held);
  Spi::Commit();
  Tell(held.user, "had the right to write again, and has lost it once more",
       "Its master was restarted, or is another one after a fail-over.");
}

// now: as this master has the user.
void LookAt(const Migration &migration, Masters &masters, const std::vector<HeldUser> &held, HeldUser now) {
  std::string const run_id = now.user.run_id;
  const HeldUser *const noted = FindUser(held, now.user);
  bool const is_fenced = IsFenced(noted == nullptr ? now.user : noted->user, now.user.rules);
  if (is_fenced && !now.user.has_selectors) {
    if (noted != nullptr) Note(*noted, run_id, "");
    return;
  }
  // Who gives rights back has these locks. Whether it has is looked at when they are free.
  pg::SessionLock lock(CutoverLockTag(migration.name), ExclusiveLock);
  pg::SessionLock server_lock(CutoverServerLockTag(migration.server), ExclusiveLock);
  bool const may_change =
      lock.TryTake() && server_lock.TryTake() && IsHeld(migration, noted == nullptr ? now : *noted);
  Spi::Commit();
  if (!may_change) return;
  if (noted == nullptr) {
    // Under another address it was fenced before.
    if (is_fenced) now.user.rules = RulesBefore(held, now.user);
    return FenceAgain(masters, std::move(now), run_id);
  }
  if (is_fenced) return Note(*noted, run_id, kSelectors);
  if (noted->user.rules == now.user.rules && noted->user.run_id != run_id && noted->trouble != kOtherRules)
    return FenceAgain(masters, *noted, run_id);
  Note(*noted, noted->user.run_id, kOtherRules);
}

// Errors: that of the first master that cannot be asked, once all others were.
void Look(const Migration &migration) {
  std::vector<HeldUser> const held = FindHeldUsers(migration.name);
  Spi::Commit();
  if (held.empty()) return;
  std::map<std::string, int64> cutovers;  // by user
  for (const HeldUser &one : held)
    cutovers[one.user.name] = std::max(cutovers[one.user.name], one.cutover_id);
  std::vector<Failure> failures;
  Masters masters(migration.server, GetUserId(), failures);
  for (const auto &[name, cutover_id] : cutovers)
    for (FencedUser &user : masters.FindUsers(name, failures))
      LookAt(migration, masters, held, {cutover_id, std::move(user), ""});
  if (!failures.empty()) throw Failure(failures.front());
}

}  // namespace

void LookAfterFences(const Migration &migration) {
  static int64 next_ms = 0;
  static char told[256] = "";  // the last trouble, so that each is told once
  int64 const began_ms = pg::MonotonicMs();
  if (began_ms < next_ms) return;
  std::string trouble;
  try {
    Look(migration);
  } catch (const Failure &failure) {
    trouble = failure.message();
  }
  if (!trouble.empty() && trouble.compare(0, sizeof(told) - 1, told) != 0)
    pg::Report(WARNING, "the fences of users of Redis cannot be looked at: " + trouble, "",
               "Whether they may write again is not known until this has an end.");
  strlcpy(told, trouble.c_str(), sizeof(told));
  int64 const end_ms = pg::MonotonicMs();
  next_ms = end_ms + std::max(kLookEveryMs, (end_ms - began_ms) * kPauses);
}

}  // namespace prm
