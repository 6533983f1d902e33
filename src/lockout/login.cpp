#include "lockout/login.h"

#include "pg/memory.h"

namespace prm::lockout {
namespace {

std::string Folded(const std::string &name) {
  // Folds case in the database's collation: two spellings of one user name share a counter.
  return std::string(pg::DatumBytes(pg::Call([&] {
    return DirectFunctionCall1Coll(lower, DEFAULT_COLLATION_OID,
                                   PointerGetDatum(cstring_to_text_with_len(name.data(), name.size())));
  })));
}

template <typename T>
void Append(std::string *bytes, const T &value) {
  bytes->append(reinterpret_cast<const char *>(&value), sizeof value);
}

void AppendText(std::string *bytes, std::string_view text) {
  Append(bytes, text.size());
  bytes->append(text);
}

constexpr int64 kForEver = INT64CONST(36525) * USECS_PER_DAY;

// The prefix length of the network whose new addresses share a counter when memory is full.
int SharedPrefix(const pg::Network &network) {
  if (network.family == 4) return 24;
  return network.bits > 64 ? 64 : std::max(network.bits - 16, 1);
}

}  // namespace

LoginCounters::LoginCounters(const std::string &policy, Login login)
    : policy_(LoadLockoutPolicy(policy, login.address ? &*login.address : nullptr)),
      login_(std::move(login)) {
  LockoutTable::Require();
  if (policy_.fold_case) login_.user_name = Folded(login_.user_name);
  slot_ = LockoutTable::SlotOf(policy_.id, policy_.owner.role());
  if (!login_.user_name.empty()) {
    std::string bytes = "u";
    AppendText(&bytes, login_.user_name);
    user_name_hash_ = KeyOf(bytes).low;
  }
  if (login_.address) {
    network_ = *login_.address;
    if (network_.family == 6) network_.Fold(policy_.ipv6_prefix);
    shared_network_ = network_;
    shared_network_.Fold(SharedPrefix(network_));
    address_hash_ = KeyOf("a" + std::string(network_.AsKey())).low;
    shared_network_hash_ = KeyOf("a" + std::string(shared_network_.AsKey())).low;
  }
  if (policy_.address_allowed) return;
  for (const LockoutScope &scope : policy_.scopes) {
    if (scope.components & ~Given()) continue;
    const Scope &counted = scopes_[count_++] = ScopeOf(scope);
    keys_[key_count_++] = counted.key;
    if (counted.network_key) keys_[key_count_++] = *counted.network_key;
  }
}

int LoginCounters::Given() const {
  return kUserAgent | (login_.user_name.empty() ? 0 : kUserName) | (login_.address ? kAddress : 0);
}

Hash128 LoginCounters::KeyOf(std::string_view text) const {
  std::string bytes;
  Append(&bytes, MyDatabaseId);
  Append(&bytes, policy_.id);
  bytes.append(text);
  return SipHash128(LockoutTable::table().secret(), bytes);
}

Hash128 LoginCounters::ScopeKey(int components, const pg::Network &network) const {
  std::string bytes = "s";
  Append(&bytes, components);
  if (components & kUserName) AppendText(&bytes, login_.user_name);
  if (components & kAddress) bytes.append(network.AsKey());
  if (components & kUserAgent) AppendText(&bytes, login_.user_agent);
  return KeyOf(bytes);
}

LoginCounters::Scope LoginCounters::ScopeOf(const LockoutScope &scope) const {
  Scope counted{&scope, ScopeKey(scope.components, network_), std::nullopt};
  if (scope.components & kAddress) counted.network_key = ScopeKey(scope.components, shared_network_);
  return counted;
}

LockoutTable::Table::Place LoginCounters::Find(const Scope &scope, int64 now) {
  const Table &table = LockoutTable::table();
  Table::Place place = table.Find(scope.key, SecondsOf(now));
  return place || !scope.network_key ? place : table.Find(*scope.network_key, SecondsOf(now));
}

LockoutTable::Table::Place LoginCounters::FindOrInsert(const Scope &scope, int64 now) const {
  Table::Place place = Find(scope, now);
  if (place) return place;
  LockoutEntry entry{};
  entry.policy = LockoutTable::PolicyHash(policy_.id);
  if (scope.scope->components & kUserName) entry.user_name = user_name_hash_;
  if (scope.scope->components & kAddress) entry.address = address_hash_;
  auto insert = [&](const Hash128 &key, Table::Spare spare) {
    return LockoutTable::Insert(key, slot_, entry, SecondsOf(now), SecondsAfter(now), spare);
  };
  if (!scope.network_key && !policy_.refuse_when_full) return insert(scope.key, Table::Spare::kNewer);
  place = insert(scope.key, Table::Spare::kAll);
  if (place || policy_.refuse_when_full) return place;
  // In a flood of addresses the newest locks are the attacker's.
  entry.address = shared_network_hash_;
  LockoutTable::Count(slot_, kSharedCounters);
  return insert(*scope.network_key, Table::Spare::kOlder);
}

const LockoutScope *LoginCounters::FullScope(int64 now) const {
  if (!policy_.refuse_when_full) return nullptr;
  for (int i = 0; i < count_; i++)
    if (!FindOrInsert(scopes_[i], now)) return scopes_[i].scope;
  // In the same bucket a counter may have taken the place of the one before it.
  for (int i = 0; i < count_; i++)
    if (!Find(scopes_[i], now)) return scopes_[i].scope;
  return nullptr;
}

// When the entry expires, and when its lock ends.
void LoginCounters::SetEnd(const Scope &scope, Table::Place place) {
  LockoutEntry &entry = place.state();
  const LockoutStatus status = StatusOf(scope.scope->rule, entry.state);
  entry.locked_until = status.locked ? SecondsAfter(status.until) : 0;
  place.set_expires(SecondsAfter(ForgottenAt(scope.scope->rule, entry.state)));
}

Answer LoginCounters::Check(int64 now, std::string_view attempt_type) {
  Answer answer;
  LockoutTable::Count(slot_, kChecks);
  if (count_ == 0) {
    answer.reason = "exempt";
    LockoutTable::Count(slot_, kExempt);
    return answer;
  }
  int32 timeouts = 0;
  bool locked = false;
  bool full = false;
  bool began = false;  // a lock began because results did not come
  int64 pending_timeout = 0;
  {
    Table::KeyLocks locks(LockoutTable::table(), keys_, key_count_);
    int32 remaining = INT32_MAX;
    for (int i = 0; i < count_; i++) {
      const LockoutRule &rule = scopes_[i].scope->rule;
      Table::Place place = Find(scopes_[i], now);
      LockoutState nothing{};
      LockoutState *state = place ? &place.state().state : &nothing;
      int32 timed_out = Advance(rule, now, state);
      LockoutStatus status = StatusOf(rule, *state);
      began = began || (timed_out > 0 && status.locked);
      timeouts = std::max(timeouts, timed_out);
      pending_timeout = rule.pending_timeout;
      if (status.locked) {
        Refuse(rule, state);
        status = StatusOf(rule, *state);
      }
      if (place) SetEnd(scopes_[i], place);
      remaining = std::min(remaining, status.room - 1);
      if (status.room > 0) continue;
      // If several refuse, report a lock rather than a wait, and the longest lock.
      answer.allowed = false;
      if (std::make_pair(status.locked, status.until) > std::make_pair(locked, answer.until)) {
        answer.blocked_by = scopes_[i].scope->components;
        answer.until = status.until;
        locked = status.locked;
      }
    }
    if (answer.allowed) {
      const LockoutScope *full_scope = FullScope(now);
      full = full_scope != nullptr;
      if (full) answer.blocked_by = full_scope->components;
      answer.allowed = !full;
    }
    answer.remaining = answer.allowed ? remaining : 0;
    if (answer.allowed) answer.token = ReserveAll(now);
  }
  LockoutTable::table().NoteChange();
  if (!answer.allowed) answer.reason = full ? "no_room" : locked ? "locked" : "pending";
  LockoutTable::Count(slot_, answer.allowed ? kAllowed : full ? kNoRoom : locked ? kLocked : kPending);
  LockoutTable::Count(slot_, kTimeouts, timeouts);
  LockoutTable::Count(slot_, kLocks, began);
  Attempt attempt = NewAttempt(now, attempt_type, answer.allowed ? "no result" : answer.reason);
  if (answer.allowed) {
    // The row is written when the result is there, or with this reason.
    attempt.waits_from = GetCurrentTimestamp();
    attempt.result_by = attempt.waits_from + pending_timeout;
    attempt.token = *answer.token;
    attempt.who = Who();
  } else {
    attempt.locks = began;
    SetBlockedBy(answer, &attempt);
  }
  answer.recorded = Put(&attempt);
  return answer;
}

int64 LoginCounters::ReserveAll(int64 now) const {
  int64 token = now;
  for (int i = 0; i < count_; i++) {
    const LockoutRule &rule = scopes_[i].scope->rule;
    Table::Place place = FindOrInsert(scopes_[i], now);
    LockoutState *state = &place.state().state;
    Advance(rule, now, state);
    Reserve(state);
    token = std::max(token, state->clock);
    SetEnd(scopes_[i], place);
  }
  return token;
}

Answer LoginCounters::Result(int64 now, bool success, std::optional<int64> token,
                             std::string_view attempt_type, std::string_view reason) {
  Answer answer;
  if (count_ == 0) answer.reason = "exempt";
  bool began = false;
  bool uncounted = false;
  {
    Table::KeyLocks locks(LockoutTable::table(), keys_, key_count_);
    for (int i = 0; i < count_; i++) {
      const LockoutScope &scope = *scopes_[i].scope;
      Table::Place place = success ? Find(scopes_[i], now) : FindOrInsert(scopes_[i], now);
      if (!place && success) continue;
      if (!place) {
        uncounted = true;
        if (answer.allowed) answer.blocked_by = scope.components;
        if (answer.allowed) answer.reason = "no_room";
        answer.allowed = false;
        continue;
      }
      LockoutState *state = &place.state().state;
      Advance(scope.rule, now, state);
      // Resets only counters of this user name: an address has failures of other accounts, too.
      bool reset = policy_.reset_on_success && (scope.components & kUserName);
      bool began_here = Settle(scope.rule, token, success, reset, state);
      LockoutStatus status = StatusOf(scope.rule, *state);
      SetEnd(scopes_[i], place);
      answer.remaining = std::min(answer.remaining.value_or(INT32_MAX), status.room);
      // A lock that began meanwhile does not refuse a login that was let in and succeeded in time.
      bool let_in = success && token && state->clock < *token + scope.rule.pending_timeout;
      if (!status.locked || let_in) continue;
      answer.allowed = false;
      answer.reason = "locked";
      if (std::make_pair(began_here, status.until) > std::make_pair(began, answer.until)) {
        answer.blocked_by = scope.components;
        answer.until = status.until;
        began = began_here;
      }
    }
  }
  LockoutTable::table().NoteChange();
  LockoutTable::Count(slot_, success ? kSuccesses : kFailures);
  LockoutTable::Count(slot_, kUncounted, uncounted);
  LockoutTable::Count(slot_, kLocks, began);
  Attempt attempt = NewAttempt(now, attempt_type, reason);
  attempt.success = success;
  attempt.locks = began;
  SetBlockedBy(answer, &attempt);
  answer.recorded = (token && AttemptQueue::Settle(*token, Who(), attempt)) || Put(&attempt);
  return answer;
}

std::vector<Counter> LoginCounters::Look(int64 now) const {
  Counter counters[kMostScopes];
  {
    Table::KeyLocks locks(LockoutTable::table(), keys_, key_count_);
    for (int i = 0; i < count_; i++) {
      const LockoutRule &rule = scopes_[i].scope->rule;
      Table::Place place = Find(scopes_[i], now);
      LockoutState state = place ? place.state().state : LockoutState{};
      Advance(rule, now, &state);
      counters[i] = {scopes_[i].scope->components, StatusOf(rule, state), state.failures, state.reserved,
                     state.clock};
    }
  }
  return std::vector<Counter>(counters, counters + count_);
}

std::optional<LoginCounters::Judged> LoginCounters::Judge(int components, int64 window, int32 threshold,
                                                          int64 now) const {
  std::optional<Judged> judged;
  Table::KeyLocks locks(LockoutTable::table(), keys_, key_count_);
  for (int i = 0; i < count_; i++) {
    if (scopes_[i].scope->components != components) continue;
    const LockoutRule &rule = scopes_[i].scope->rule;
    Table::Place place = policy_.refuse_when_full ? FindOrInsert(scopes_[i], now) : Find(scopes_[i], now);
    LockoutState state = place ? place.state().state : LockoutState{};
    Advance(rule, now, &state);
    judged = {CountWithin(rule, state, window, threshold), state.failures > 0 ? state.last : 0,
              policy_.refuse_when_full && !place};
  }
  return judged;
}

void LoginCounters::Import(int components, int32 failures, int64 last, bool for_ever, int64 now) {
  auto scope = std::find_if(policy_.scopes.begin(), policy_.scopes.end(),
                            [&](const LockoutScope &s) { return s.components == components; });
  if (scope == policy_.scopes.end())
    throw pg::Failure(ERRCODE_INVALID_PARAMETER_VALUE,
                      "lockout policy \"" + policy_.name + "\" does not count by " + ScopeName(components),
                      "",
                      "Give exactly the columns of one of its scopes, or add the scope with "
                      "redis_migrate.alter_lockout.");
  if (failures <= 0) return;
  const Scope counter = ScopeOf(*scope);
  const Hash128 keys[] = {counter.key, counter.network_key.value_or(counter.key)};
  bool full;
  {
    Table::KeyLocks locks(LockoutTable::table(), keys, 2);
    Table::Place place = FindOrInsert(counter, now);
    full = !place;
    if (place) {
      LockoutState *state = &place.state().state;
      Advance(scope->rule, now, state);
      last = std::min(last, state->clock);
      if (for_ever && failures >= scope->rule.threshold()) last = state->clock + kForEver;
      ImportFailures(scope->rule, failures, last, state);
      SetEnd(counter, place);
    }
  }
  if (full)
    throw pg::Failure(
        ERRCODE_CONFIGURATION_LIMIT_EXCEEDED,
        "no memory is left for a counter of lockout policy \"" + policy_.name + "\"",
        "Memory is full of locks, and the policy has when_full => 'refuse'.",
        "Raise pg_redis_migrate.lockout_memory, or end locks with redis_migrate.reset_lockout.");
  LockoutTable::table().NoteChange();
}

uint64 LoginCounters::Reset(bool everything, int64 now) const {
  const Table &table = LockoutTable::table();
  table.NoteChange();
  const uint32 policy = LockoutTable::PolicyHash(policy_.id);
  auto forget = [&](const Hash128 &, const LockoutEntry &entry, Table::Owner) {
    if (entry.policy != policy) return false;
    if (everything) return true;
    if (user_name_hash_ == 0 && address_hash_ == 0) return false;
    const bool same_user = entry.user_name == user_name_hash_;
    const bool same_address = entry.address == address_hash_ || entry.address == shared_network_hash_;
    bool user_name = entry.user_name == 0 || user_name_hash_ == 0 || same_user;
    bool address = entry.address == 0 || address_hash_ == 0 || same_address;
    bool named = (entry.user_name != 0 && user_name_hash_ != 0) || (entry.address != 0 && address_hash_ != 0);
    return named && user_name && address;
  };
  return table.RemoveIf(SecondsOf(now), forget);
}

Attempt LoginCounters::NewAttempt(int64 now, std::string_view attempt_type, std::string_view reason) const {
  Attempt attempt{};
  attempt.at = now;
  attempt.has_success = true;
  attempt.owner = policy_.owner.role();
  if (login_.address) attempt.address = *login_.address;
  attempt.policy.Set(policy_.name);
  attempt.notify_channel.Set(policy_.notify_channel);
  attempt.attempt_type.Set(attempt_type);
  attempt.reason.Set(reason);
  attempt.user_name.Set(login_.user_name);
  attempt.user_agent.Set(login_.user_agent);
  return attempt;
}

void LoginCounters::SetBlockedBy(const Answer &answer, Attempt *attempt) {
  if (answer.blocked_by == 0) return;
  attempt->locked_by.Set(ScopeName(answer.blocked_by));
  if (answer.reason == std::string_view("locked")) attempt->locked_until = answer.until;
}

bool LoginCounters::Put(Attempt *attempt) const { return AttemptQueue::Put(slot_, attempt); }

}  // namespace prm::lockout
