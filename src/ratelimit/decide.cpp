#include "ratelimit/decide.h"

#include "pg/arguments.h"
#include "pg/time.h"
#include "pg/transaction.h"
#include "ratelimit/memory.h"
#include "ratelimit/table_storage.h"

namespace prm::ratelimit {
namespace {

using pg::Failure;

// A state of a simulation must outlive the simulation, even if its times are in the past.
constexpr int64 kSimulatedFor = 60 * pg::kSecondNs;

// A request on its way to an answer.
struct Pending {
  const Request *request;
  const RateLimit *limit;
  int64 now;
  Outcome outcome;
  bool settled = false;  // by a list, or because the policy is unavailable
  Hash128 fingerprint;   // memory
  std::string row_key;   // tables
  RateDecision decision;
};

int64 NowFor(const Request &request) { return request.at ? *request.at : ClockNow(); }

// Whether the policy can be decided. If not, fail_open decides: false, or an error.
bool Available(const Policy &policy) {
  if (policy.storage == Storage::kMemory) {
    if (MemoryAvailable()) return true;
    if (policy.fail_open) return false;
    throw Failure(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
                  "rate limit policy \"" + policy.name + "\" needs shared memory",
                  "Storage memory requires the library to be loaded when the server starts.",
                  "Add pg_redis_migrate to shared_preload_libraries and restart the server.");
  }
  if (!RecoveryInProgress()) return true;
  if (policy.fail_open) return false;
  throw Failure(ERRCODE_READ_ONLY_SQL_TRANSACTION,
                "rate limit policy \"" + policy.name + "\" cannot be decided during recovery",
                "Its states are in a table, which a standby cannot write.",
                "Use storage => 'memory' for limits that standbys decide.");
}

void Settle(Pending *pending, bool allowed, Reason reason) {
  pending->settled = true;
  pending->outcome.allowed = allowed;
  pending->outcome.reason = reason;
  pending->outcome.quota = pending->limit->most();
  pending->outcome.remaining = allowed ? pending->outcome.quota : 0;
}

void AskLists(Pending *pending) {
  const Request &request = *pending->request;
  const Policy &policy = *request.policy;
  const KeyRule *rule = policy.RuleFor(request.key.text, request.key.listed());
  if (rule == nullptr) return;
  if (rule->limit) pending->limit = &*rule->limit;
  if (rule->allow) return Settle(pending, true, Reason::kAllowlisted);
  if (!rule->deny) return;
  if (rule->deny_until == 0) {
    Settle(pending, false, Reason::kDenylisted);
    pending->outcome.reset = -1;
    return;
  }
  int64 const ahead = rule->AheadBy(pg::UnixNs(pg::Call([] { return GetCurrentTimestamp(); })));
  if (ahead > 0) ForgetPolicies();
  if (int64 const until = rule->deny_until - ahead; until > pending->now) {
    Settle(pending, false, Reason::kBlocked);
    pending->outcome.reset = pending->outcome.retry = until - pending->now;
  }
}

// The request with the fingerprint of its key.
Pending Prepare(const Request &request) {
  const Policy &policy = *request.policy;
  const Key &key = request.key;
  if (request.cost < 0)
    throw Failure(ERRCODE_INVALID_PARAMETER_VALUE, "cost must not be negative", "",
                  "Use redis_migrate.rate_limit_refund to give cost back.");
  Pending pending{&request, &policy.limit, 0, {}, false, {}, {}, {}};
  if (policy.storage != Storage::kMemory) {
    pending.row_key = StoredKey(key.text, key.is_address ? &key.address : nullptr);
  } else if (key.is_address) {
    // No text has this fingerprint: texts are hashed under the other half of the secret.
    const SipKey secret = {policy.key_secret[1], policy.key_secret[0]};
    pending.fingerprint = SipHash128(secret, key.address.AsKey());
  } else {
    pending.fingerprint = SipHash128(policy.key_secret, key.text);
  }
  return pending;
}

// Settles what needs no state: keys on a list, policies that are not available.
void SettleEarly(Pending *pending) {
  const Policy &policy = *pending->request->policy;
  if (!policy.keys.empty() || !policy.networks.empty()) {
    pending->now = NowFor(*pending->request);
    AskLists(pending);
  }
  if (!pending->settled && !Available(policy)) Settle(pending, true, Reason::kUnavailable);
}

// Turns the decision into the caller's answer.
void Conclude(Pending *pending) {
  // The clock was not read if the policy was unavailable and no list was asked.
  if (pending->now == 0) pending->now = NowFor(*pending->request);
  pending->outcome.now = pending->now;
  if (pending->settled) return;
  const RateDecision &decision = pending->decision;
  Outcome &outcome = pending->outcome;
  outcome.quota = pending->limit->most();
  outcome.remaining = decision.remaining;
  outcome.reset = decision.reset;
  if (decision.allowed) {
    outcome.allowed = true;
    outcome.reason = Reason::kOk;
  } else if (pending->request->policy->shadow) {
    outcome.allowed = true;
    outcome.reason = Reason::kShadow;
  } else {
    outcome.reason = decision.never ? Reason::kCostExceedsLimit : Reason::kLimited;
    if (!decision.never) outcome.retry = decision.retry;
  }
}

// Whether the requests asked together with it may pass: a shadowed refusal stops nobody.
bool Passes(const Pending &pending) {
  if (pending.settled) return pending.outcome.allowed;
  return pending.decision.allowed || pending.request->policy->shadow;
}

pg::Seconds EntryExpiry(const Pending &pending, const RateState &state) {
  const int64 forget_at = ForgetAt(*pending.limit, state);
  if (!pending.request->at) return pg::SecondsUp(forget_at);
  return pg::SecondsUp(ClockNow() + std::max(forget_at - pending.now, kSimulatedFor));
}

// The entry of the request's key. A simulation also sees entries that have expired by the clock.
StateTable::Place FindEntry(const Pending &pending) {
  return state_table.Find(pending.fingerprint, pending.request->at ? 0 : pg::SecondsDown(pending.now));
}

// The caller holds the key's lock.
void StoreEntry(const Pending &pending, StateTable::Place place, const RateState &state) {
  const pg::Seconds expires = EntryExpiry(pending, state);
  if (place) {
    place.state() = state;
    place.set_expires(expires);
    return;
  }
  const pg::Seconds now = pg::SecondsDown(pending.request->at ? ClockNow() : pending.now);
  StateTable::Evicted evicted;
  state_table.Insert(pending.fingerprint, pending.request->policy->slot, state, now, expires, Shares(),
                     &evicted);
  if (evicted.owner != StateTable::kNobody) Count(evicted.owner, kEvicted);
}

// One request in memory: the path that has to be fast.
void DecideInMemory(Pending *pending) {
  const Request &request = *pending->request;
  {
    StateTable::KeyLocks lock(state_table, &pending->fingerprint, 1);
    pending->now = NowFor(request);
    StateTable::Place place = FindEntry(*pending);
    RateState state = place ? place.state() : RateState{};
    pending->decision = prm::Decide(*pending->limit, &state, pending->now, request.cost);
    if (pending->decision.store) StoreEntry(*pending, place, state);
  }
  if (pending->decision.store) state_table.NoteChange();
}

// Several requests at once. Charges them only if all pass, and returns whether they do.
bool DecideAllInMemory(std::vector<Pending *> &all, bool charge) {
  constexpr int kMost = StateTable::KeyLocks::kMostKeys;
  Hash128 fingerprints[kMost];
  RateState states[kMost];
  const int count = static_cast<int>(all.size());
  for (int i = 0; i < count; i++) fingerprints[i] = all[i]->fingerprint;
  {
    StateTable::KeyLocks locks(state_table, fingerprints, count);
    for (int i = 0; i < count; i++) {
      all[i]->now = NowFor(*all[i]->request);
      StateTable::Place place = FindEntry(*all[i]);
      states[i] = place ? place.state() : RateState{};
      all[i]->decision = prm::Decide(*all[i]->limit, &states[i], all[i]->now, all[i]->request->cost);
      charge = charge && Passes(*all[i]);
    }
    if (charge)
      for (int i = 0; i < count; i++)
        if (all[i]->decision.store) StoreEntry(*all[i], FindEntry(*all[i]), states[i]);
  }
  if (charge && count > 0) state_table.NoteChange();
  return charge;
}

TableKey RowOf(const Pending &pending) {
  return {pending.request->policy, pending.limit, pending.row_key, pending.request->at.has_value()};
}

bool StepOf(void *context, RateState *state) {
  auto *pending = static_cast<Pending *>(context);
  pending->now = NowFor(*pending->request);
  pending->decision = prm::Decide(*pending->limit, state, pending->now, pending->request->cost);
  return pending->decision.store;
}

void LookInTable(Pending *pending) {
  bool found = false;
  RateState state = ReadState(RowOf(*pending), &found);
  StepOf(pending, &state);
}

void DecideInTable(Pending *pending) {
  if (pending->request->cost == 0) return LookInTable(pending);
  ChangeState(RowOf(*pending), StepOf, pending);
}

void CountOutcome(const Pending &pending) {
  const Policy &policy = *pending.request->policy;
  if (!MemoryAvailable() || pending.request->cost == 0) return;
  switch (pending.outcome.reason) {
    case Reason::kOk:
    case Reason::kAllowlisted:
    case Reason::kUnavailable:
      return Count(policy.slot, kAllowed);
    case Reason::kShadow:
      return Count(policy.slot, kShadowed);
    case Reason::kDenylisted:
    case Reason::kBlocked:
      Count(policy.slot, kBlocked);
      break;
    default:
      Count(policy.slot, kLimited);
  }
  uint64 refused = 0;
  if (TimeToLogRefusals(policy.slot, pending.request->at ? ClockNow() : pending.now, &refused))
    pg::Call([&] {
      ereport(LOG, (errmsg("requests refused by rate limit policy \"%s\" since this was last reported: %llu",
                           policy.name.c_str(), static_cast<unsigned long long>(refused)),
                    errhidestmt(true), errhidecontext(true)));
    });
}

bool InTable(const Pending &pending) { return pending.request->policy->storage != Storage::kMemory; }

// Orders requests by their state. Rows are locked in this order.
bool Before(const Pending *a, const Pending *b) {
  return std::tie(a->request->policy->id, a->row_key, a->fingerprint.low, a->fingerprint.high) <
         std::tie(b->request->policy->id, b->row_key, b->fingerprint.low, b->fingerprint.high);
}

struct Refused {};

// Charges the rows, then the memory; throws Refused to have the rows rolled back.
void ChargeTablesAndMemory(std::vector<Pending *> &tables, std::vector<Pending *> &memory) {
  for (Pending *pending : tables) {
    DecideInTable(pending);
    if (!Passes(*pending)) throw Refused{};
  }
  if (!DecideAllInMemory(memory, true)) throw Refused{};
}

}  // namespace

Key TextKey(const Policy &policy, Bytes text) {
  if (!policy.inet_keys) return Key{text, {}, false};
  const char *address = pg::CString(text);
  return AddressKey(policy, pg::Call([&] {
                      return DatumGetInetPP(DirectFunctionCall1(inet_in, CStringGetDatum(address)));
                    }));
}

Key AddressKey(const Policy &policy, const inet *address) {
  Key key;
  key.is_address = true;
  key.host = key.address = pg::NetworkOf(address);
  key.address.Fold(key.address.family == 4 ? 32 : policy.ipv6_prefix);
  return key;
}

Outcome Decide(const Request &request) {
  Pending pending = Prepare(request);
  SettleEarly(&pending);
  if (!pending.settled) {
    if (InTable(pending))
      DecideInTable(&pending);
    else
      DecideInMemory(&pending);
  }
  Conclude(&pending);
  CountOutcome(pending);
  return pending.outcome;
}

std::vector<Outcome> DecideTogether(const std::vector<Request> &requests) {
  if (requests.size() > StateTable::KeyLocks::kMostKeys)
    throw Failure(ERRCODE_INVALID_PARAMETER_VALUE, "no more than " +
                                                       std::to_string(StateTable::KeyLocks::kMostKeys) +
                                                       " rate limits can be asked for at once");
  std::vector<Pending> all;
  for (const Request &request : requests) all.push_back(Prepare(request));
  std::vector<Pending *> tables, memory;
  bool passes = true;
  for (Pending &pending : all) {
    SettleEarly(&pending);
    if (pending.settled)
      passes = passes && Passes(pending);
    else
      (InTable(pending) ? tables : memory).push_back(&pending);
  }
  for (auto *group : {&tables, &memory}) {
    std::sort(group->begin(), group->end(), Before);
    auto same = std::adjacent_find(group->begin(), group->end(),
                                   [](Pending *a, Pending *b) { return !Before(a, b); });
    if (same != group->end())
      throw Failure(
          ERRCODE_INVALID_PARAMETER_VALUE,
          "rate limit policy \"" + (*same)->request->policy->name + "\" is named twice for the same key", "",
          "Name it once, with the sum of the costs.");
  }
  for (Pending *pending : tables) {
    LookInTable(pending);
    passes = passes && Passes(*pending);
  }
  bool charged = passes;
  if (!passes || tables.empty()) {
    charged = DecideAllInMemory(memory, passes);
  } else {
    try {
      pg::InSubtransaction([&] { ChargeTablesAndMemory(tables, memory); });
    } catch (const Refused &) {
      charged = DecideAllInMemory(memory, false);
    }
  }
  std::vector<Outcome> outcomes;
  for (Pending &pending : all) {
    Conclude(&pending);
    if (charged || !pending.outcome.allowed) CountOutcome(pending);
    outcomes.push_back(pending.outcome);
  }
  return outcomes;
}

int64 GiveBack(const Request &request) {
  Pending pending = Prepare(request);
  SettleEarly(&pending);
  if (pending.settled) return pending.outcome.remaining;
  struct Context {
    Pending *pending;
    int64 remaining;
  } context{&pending, 0};
  Step step = [](void *opaque, RateState *state) {
    auto *with = static_cast<Context *>(opaque);
    const Request &asked = *with->pending->request;
    const int64 now = with->pending->now = NowFor(asked);
    const bool changed = Refund(*with->pending->limit, state, now, asked.cost);
    RateState after = *state;
    with->remaining = prm::Decide(*with->pending->limit, &after, now, 0).remaining;
    return changed;
  };
  if (InTable(pending)) {
    const TableKey key = RowOf(pending);
    bool found = false;
    RateState state = ReadState(key, &found);
    if (step(&context, &state) && found) ChangeState(key, step, &context);
    return context.remaining;
  }
  {
    StateTable::KeyLocks lock(state_table, &pending.fingerprint, 1);
    pending.now = NowFor(request);
    StateTable::Place place = FindEntry(pending);
    RateState state = place ? place.state() : RateState{};
    if (step(&context, &state) && place) StoreEntry(pending, place, state);
  }
  state_table.NoteChange();
  return context.remaining;
}

int64 Import(const Request &request, const RateState &imported) {
  Pending pending = Prepare(request);
  pending.now = NowFor(request);
  AskLists(&pending);  // for the numbers of an override
  Available(*request.policy);
  struct Context {
    Pending *pending;
    RateState imported;
  } context{&pending, imported};
  Step step = [](void *opaque, RateState *state) {
    auto *with = static_cast<Context *>(opaque);
    const RateLimit &limit = *with->pending->limit;
    const int64 now = with->pending->now = NowFor(*with->pending->request);
    RateState ours = *state, theirs = with->imported;
    const RateDecision of_ours = prm::Decide(limit, &ours, now, 0);
    const RateDecision of_theirs = prm::Decide(limit, &theirs, now, 0);
    const bool worse = std::make_pair(of_theirs.remaining, -of_theirs.reset) <
                       std::make_pair(of_ours.remaining, -of_ours.reset);
    with->pending->decision = worse ? of_theirs : of_ours;
    if (worse) *state = theirs;
    return worse;
  };
  if (InTable(pending)) {
    ChangeState(RowOf(pending), step, &context);
    return pending.decision.remaining;
  }
  {
    StateTable::KeyLocks lock(state_table, &pending.fingerprint, 1);
    pending.now = NowFor(request);
    StateTable::Place place = FindEntry(pending);
    RateState state = place ? place.state() : RateState{};
    if (step(&context, &state)) StoreEntry(pending, place, state);
  }
  state_table.NoteChange();
  return pending.decision.remaining;
}

bool Forget(const Request &request) {
  Pending pending = Prepare(request);
  if (!Available(*request.policy)) return false;
  if (InTable(pending)) return DeleteState(RowOf(pending));
  {
    StateTable::KeyLocks lock(state_table, &pending.fingerprint, 1);
    pending.now = NowFor(request);
    StateTable::Place place = FindEntry(pending);
    if (!place) return false;
    place.Remove();
  }
  state_table.NoteChange();
  return true;
}

}  // namespace prm::ratelimit
