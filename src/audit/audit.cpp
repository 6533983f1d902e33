// CALL redis_migrate.audit(…): finds the key families of a server.
#include <algorithm>
#include <chrono>
#include <cmath>
#include <set>

#include "audit/audit_record.h"
#include "connect/outage.h"
#include "connect/server.h"
#include "connect/source_reader.h"
#include "discover/cluster_survey.h"
#include "discover/family_tree.h"
#include "discover/survey.h"
#include "mapping/mapping_check.h"
#include "pg/argument_ranges.h"
#include "pg/encoding.h"
#include "pg/entry.h"
#include "pg/identity.h"
#include "pg/memory.h"
#include "pg/owner.h"
#include "pg/settings.h"
#include "pg/spi.h"
#include "pg/time.h"
#include "redis/info.h"
#include "source/rate_ceiling.h"

namespace prm {
namespace {

using pg::Failure;
using pg::Spi;

// The number of values read per family to find their encoding.
constexpr uint64_t kValuesPerFamily = 200;
constexpr size_t kLargestKeys = 100;  // of each database
constexpr long kScanCount = 1000;
// Under max_rate a page holds the keys of a tenth of a second.
constexpr int kPagesPerSecond = 10;
constexpr double kSaveEverySeconds = 1;
// The pause between attempts to resume the audit of a cluster.
constexpr long kRetryMs = 500;

double Now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

template <typename Texts>
std::string Join(const Texts &texts, const char *between = ", ") {
  std::string joined;
  for (const std::string &text : texts) joined += (joined.empty() ? "" : between) + text;
  return joined;
}

// Decides what to ask about a key from what is known of its family so far. SCAN returns keys in no meaningful
// order, so the first ones are as good as any.
class Sampling : public Curiosity {
 public:
  Sampling(std::optional<double> sample, const std::unique_ptr<FamilyTree> &tree)
      : sample_(sample), tree_(tree) {}

  // Answers come a page later, so keys count when they are asked about.
  Question Ask(int, Bytes key) override {
    KeyStats *family = tree_->Find(key);
    if (family == nullptr) return Question::kFactsAndValue;
    KeyStats::Plan &plan = family->plan;
    ++plan.names;
    if (sample_) {
      double const wanted = *sample_ < 1 ? *sample_ * static_cast<double>(plan.names) : *sample_;
      if (static_cast<double>(std::max(plan.facts, family->asked())) >= wanted) return Question::kName;
    }
    ++plan.facts;
    if (std::max(plan.values, family->values()) >= kValuesPerFamily) return Question::kFacts;
    ++plan.values;
    return Question::kFactsAndValue;
  }

 private:
  std::optional<double> sample_;
  const std::unique_ptr<FamilyTree> &tree_;  // another one for each database
};

// The findings so far.
struct Findings {
  std::unique_ptr<FamilyTree> tree = std::make_unique<FamilyTree>();  // of the database that is being read
  std::vector<LargeKey> largest;                                      // in it; a heap, the smallest first
  AuditCounts counts;

  Findings() = default;
  Findings(Findings &&) = default;
  Findings &operator=(Findings &&) = default;
  Findings(const Findings &other)
      : tree(std::make_unique<FamilyTree>(*other.tree)), largest(other.largest), counts(other.counts) {}
};

class Audit {
 public:
  Audit(const AuditParameters &parameters, const redis::Deployment &deployment, Datum max_duration)
      : parameters_(parameters),
        deployment_(deployment),
        record_(parameters, max_duration, parameters.max_seconds.has_value()),
        sampling_(parameters.sample, found_.tree),
        rate_(parameters.max_rate.value_or(0)),
        start_(Now()),
        saved_at_(start_) {
    Spi::Commit();
  }

  int64 id() const { return record_.id(); }

  void Execute() {
    // No transaction is open during a network wait: each Commit comes right before one.
    SurveyOptions options;
    options.scan_count = kScanCount;
    if (parameters_.max_rate)
      options.scan_count = std::clamp<long>(*parameters_.max_rate / kPagesPerSecond, 10, kScanCount);
    if (deployment_.seeds.empty())
      OpenServer(options);
    else
      OpenCluster(options);
    SurveyPage page;
    while (!OutOfTime()) {
      auto next = survey_->Next(page);
      if (!next.ok()) {
        WaitForCluster(next.error());
        continue;
      }
      if (!next.value()) {
        Note();
        Conclude("completed", std::nullopt);
        return;
      }
      lost_since_.reset();
      db_ = page.db;
      rate_.Take(page.names);
      for (const SurveyedKey &key : page.keys) Take(key);
      if (page.ends_db) {
        settled_.reset();  // storing takes memory, too
        StoreFamilies();
      } else {
        if (page.settled) settled_.emplace(found_);
        if (Now() - saved_at_ >= kSaveEverySeconds) Save();
      }
      Pace();
    }
    Note();
    StoreFamilies();
    Conclude("stopped", "max_duration passed before all keys were seen");
  }

  // After an error. The findings so far are kept.
  void Fail(const pg::Problem &problem) {
    Spi::RollBack();
    StoreFamilies();
    record_.Finish(problem.cancelled() ? "stopped" : "failed", found_.counts, problem.SqlState(),
                   problem.message);
    Spi::Commit();
  }

 private:
  void OpenServer(SurveyOptions &options) {
    connection_.emplace(parameters_.server, GetUserId());
    Spi::Commit();
    options.databases = Databases(**connection_);
    several_ = options.databases.size() > 1;
    Spi::Commit();
    survey_ = pg::ValueOrThrow(ServerSurvey::Open(**connection_, options, sampling_));
  }

  void OpenCluster(const SurveyOptions &options) {
    if (parameters_.databases && *parameters_.databases != std::vector<int>{0})
      throw Failure(ERRCODE_INVALID_PARAMETER_VALUE, "a Redis Cluster has database 0 only", "",
                    "Leave out databases.");
    redis::Waiter &waiter = cluster_.emplace().waiter;
    auto topology = pg::ValueOrThrow(redis::FindTopology(deployment_, waiter));
    std::vector<redis::ServerInfo> masters;
    for (const redis::ClusterShard &shard : topology.shards) {
      auto connection = pg::ValueOrThrow(redis::OpenNode(deployment_, shard.master.endpoint, waiter));
      if (auto info = InfoOf(*connection)) masters.push_back(std::move(*info));
    }
    if (masters.size() == topology.shards.size())
      Describe(masters);
    else
      record_.AddNote("the user may not run INFO on every master");
    Spi::Commit();
    survey_ = std::make_unique<ClusterSurvey>(deployment_, options, sampling_, waiter);
    settled_.emplace();
  }

  // The server's INFO, if the user may ask.
  static std::optional<redis::ServerInfo> InfoOf(redis::Connection &connection) {
    auto info = redis::FetchInfo(connection);
    if (info.ok()) return std::move(info.value());
    if (info.error().code != ErrorCode::kPermissionDenied && info.error().code != ErrorCode::kServerError)
      throw Failure(info.error());
    return std::nullopt;
  }

  // The databases to audit. If the server does not tell which ones have keys, database 0.
  std::vector<int> Databases(redis::Connection &connection) {
    const std::optional<redis::ServerInfo> info = InfoOf(connection);
    if (!info) {
      record_.AddNote("the user may not run INFO: only " +
                      std::string(parameters_.databases ? "the databases named" : "database 0") +
                      " was examined");
      return parameters_.databases ? *parameters_.databases : std::vector<int>{0};
    }
    if (info->Get("redis_mode") == "cluster")
      throw Failure(
          ERRCODE_INVALID_PARAMETER_VALUE, "Redis at " + connection.address() + " is a node of a cluster",
          "It has only some of the keys.",
          "ALTER SERVER " + pg::QuoteIdentifier(parameters_.server) + " OPTIONS (ADD cluster 'on').");
    std::vector<int> databases;
    for (const redis::KeyspaceInfo &keyspace : info->Keyspace())
      if (IsWanted(keyspace.db)) databases.push_back(keyspace.db);
    Describe({*info});
    if (databases.empty()) databases.push_back(parameters_.databases ? parameters_.databases->front() : 0);
    return databases;
  }

  bool IsWanted(int db) const {
    return !parameters_.databases || std::find(parameters_.databases->begin(), parameters_.databases->end(),
                                               db) != parameters_.databases->end();
  }

  // Notes what the server, or every master of a cluster, reports about itself.
  void Describe(const std::vector<redis::ServerInfo> &servers) {
    std::set<std::string> versions, policies;
    uint64_t keys = 0;
    bool shares_integers = false;
    for (const redis::ServerInfo &info : servers) {
      versions.emplace(info.version());
      std::string const policy = info.Show("maxmemory_policy");
      if (!policy.empty()) policies.insert(policy);
      // Redis does not share integers under an eviction policy by use (redis 7.0 src/object.c).
      shares_integers = shares_integers || info.maxmemory().value_or(0) == 0 ||
                        (policy.find("lru") == std::string::npos && policy.find("lfu") == std::string::npos);
      for (const redis::KeyspaceInfo &keyspace : info.Keyspace())
        if (IsWanted(keyspace.db)) keys = redis::AddKeys(keys, keyspace.keys);
    }
    policy_ = Join(policies);
    record_.SetServer(Join(versions), policy_, static_cast<int64>(keys), shares_integers);
  }

  void Take(const SurveyedKey &key) {
    ++found_.counts.keys;
    bool const asked = key.question != Question::kName;
    if (key.vanished) {
      ++found_.counts.vanished;
      return;
    }
    if (asked) ++found_.counts.asked;
    if (!key.refusal.empty()) ++found_.counts.odd["Redis refused: " + key.refusal];
    if (key.name.empty())
      ++found_.counts.odd["empty name"];
    else if (std::string scratch; !pg::TextFromUtf8(key.name, scratch))
      ++found_.counts.odd["name is not valid text"];
    found_.tree->Add(key.name, asked ? &key.facts : nullptr);
    if (key.facts.bytes) TakeLargest(key);
    if (key.facts.kind) read_values_ = true;
  }

  void TakeLargest(const SurveyedKey &key) {
    auto larger = [](const LargeKey &a, const LargeKey &b) { return a.bytes > b.bytes; };
    uint64_t const bytes = *key.facts.bytes;
    if (found_.largest.size() == kLargestKeys) {
      if (bytes <= found_.largest.front().bytes) return;
      std::pop_heap(found_.largest.begin(), found_.largest.end(), larger);
      found_.largest.pop_back();
    }
    found_.largest.push_back({bytes, key.name, key.facts.type, key.facts.ttl_ms});
    std::push_heap(found_.largest.begin(), found_.largest.end(), larger);
  }

  // After an error from which a cluster may recover: drops findings that will be read again, and waits a
  // moment. Throws other errors, and those that last too long.
  void WaitForCluster(const Error &error) {
    if (!settled_ || !MayComeBack(error.code)) throw Failure(error);
    if (found_.counts.keys != settled_->counts.keys) {
      ++repeats_;
      last_repeat_ = error.message;
      // Warns ever more rarely: an unstable cluster would fill the log.
      if ((repeats_ & (repeats_ - 1)) == 0)
        pg::Report(WARNING, error.message, error.detail,
                   "The keys read since the last complete node are read again.");
    }
    found_.tree.reset();  // so that there are never three
    found_ = Findings(*settled_);
    double const now = Now();
    if (!lost_since_) lost_since_ = now;
    if (now - *lost_since_ >= pg::settings::reconnect_timeout_ms / 1000.0)
      throw Failure(
          Failure::SqlState(error.code), error.message, error.detail,
          "The families found so far are kept. CALL redis_migrate.audit again when the cluster is whole.");
    Save();
    pg::Sleep(kRetryMs);
  }

  bool OutOfTime() const { return parameters_.max_seconds && Now() - start_ >= *parameters_.max_seconds; }

  // Waits until the ceiling allows more, or the time is over.
  void Pace() {
    long wait = rate_.WaitMs();
    if (parameters_.max_seconds)
      wait = std::min(wait, std::lround((start_ + *parameters_.max_seconds - Now()) * 1000));
    if (wait > 0) pg::Sleep(wait);
  }

  void StoreFamilies() {
    if (!found_.tree || found_.tree->root().keys == 0) return;  // none: there was no memory for it
    found_.tree->Finish();
    std::vector<Family> const families = FindFamilies(*found_.tree);
    for (const Family &family : families)
      for (const auto &[reason, keys] : family.odd)
        found_.counts.odd["capture " + reason] += static_cast<int64>(keys);
    if (found_.tree->capped())
      record_.AddNote("database " + std::to_string(db_) +
                      " has more distinct names than an audit can tell apart: some families may be merged");
    std::sort(found_.largest.begin(), found_.largest.end(), [](const LargeKey &a, const LargeKey &b) {
      return a.bytes != b.bytes ? a.bytes > b.bytes : a.key < b.key;
    });
    record_.AddFamilies(db_, several_, families, found_.largest);
    Save();
    found_.largest.clear();
    found_.tree = std::make_unique<FamilyTree>();
  }

  void Save() {
    record_.Save(found_.counts);
    Spi::Commit();
    saved_at_ = Now();
  }

  void Note() {
    std::string const missing = Join(survey_->missing());
    if (!missing.empty()) record_.AddNote("not available on this server to this user: " + missing);
    if (policy_.find("lfu") != std::string::npos)
      record_.AddNote("under " + policy_ +
                      " Redis knows how often keys are used, not how long they were idle");
    if (read_values_ && !survey_->no_touch())
      record_.AddNote("up to " + std::to_string(kValuesPerFamily) +
                      " keys of each family were touched by reading their values");
    if (repeats_ > 0)
      record_.AddNote("parts of the cluster were read again, " + std::to_string(repeats_) +
                      " times, and each key counted once; the last time because " + last_repeat_);
    if (parameters_.sample) record_.AddNote("sampled: bytes and expiries are estimates");
  }

  void Conclude(const std::string &state, const std::optional<std::string> &message) {
    record_.Finish(state, found_.counts, std::nullopt, message);
    Spi::Commit();
    int64 odd = 0;
    for (const auto &[reason, keys] : found_.counts.odd) odd += keys;
    std::string const notes = Join(record_.notes(), "; ");
    pg::Report(NOTICE,
               "audit " + std::to_string(id()) + " of server \"" + parameters_.server + "\" " + state + ": " +
                   std::to_string(found_.counts.keys) + " keys in " + std::to_string(record_.families()) +
                   " families, " + (parameters_.sample ? "about " : "") + std::to_string(record_.bytes()) +
                   " bytes, " + (parameters_.sample ? "about " : "") +
                   std::to_string(record_.without_expiry()) + " without expiry, " +
                   std::to_string(found_.counts.vanished) + " vanished, " + std::to_string(odd) + " odd" +
                   (message ? "; " + *message : ""),
               notes,
               "SELECT * FROM redis_migrate.audit_families WHERE audit_id = " + std::to_string(id()) +
                   " ORDER BY keys DESC.");
  }

  const AuditParameters &parameters_;
  const redis::Deployment &deployment_;
  AuditRecord record_;
  Findings found_;
  std::optional<Findings> settled_;  // of a cluster: without what may have to be read again
  Sampling sampling_;
  std::optional<ServerConnection> connection_;  // to a single server
  std::optional<ClusterResources> cluster_;
  std::unique_ptr<Survey> survey_;
  std::string policy_;
  bool several_ = false;
  bool read_values_ = false;
  int db_ = 0;
  source::RateCeiling rate_;
  int64 repeats_ = 0;
  std::string last_repeat_;
  std::optional<double> lost_since_;  // the cluster
  double start_;
  double saved_at_;
};

void ExecuteAudit(const AuditParameters &parameters, const redis::Deployment &deployment,
                  Datum max_duration) {
  Audit audit(parameters, deployment, max_duration);
  try {
    audit.Execute();
  } catch (...) {
    audit.Fail(pg::CurrentProblem());
    throw;
  }
}

}  // namespace
}  // namespace prm

// redis_migrate.audit(server name, sample float8, max_duration interval, databases int4[], max_rate int4):
// see the SQL comment and docs/audit.md. Errors: 2D000 in a transaction block, 22023 for invalid arguments,
// those of the server object and of the connection.
PRM_FUNCTION(audit) {
  using namespace prm;
  pg::RequireNonAtomic(fcinfo, "redis_migrate.audit commits as it goes");
  if (PG_ARGISNULL(0)) throw pg::Failure(ERRCODE_NULL_VALUE_NOT_ALLOWED, "server must not be NULL");
  AuditParameters parameters;
  parameters.server = NameStr(*PG_GETARG_NAME(0));
  if (!PG_ARGISNULL(1)) parameters.sample = PG_GETARG_FLOAT8(1);
  if (auto const us = pg::OptionalDurationArgument(fcinfo, 2, "max_duration", pg::kMillisecond,
                                                   pg::kHundredYears, "NULL means no limit."))
    parameters.max_seconds = pg::SecondsOfUs(*us);
  parameters.databases = pg::OptionalInt4ArrayArgument(fcinfo, 3);
  CheckDatabases(parameters.databases);
  if (!PG_ARGISNULL(4)) parameters.max_rate = PG_GETARG_INT32(4);
  bool const is_share = parameters.sample && *parameters.sample > 0 && *parameters.sample < 1;
  bool const is_count = parameters.sample && *parameters.sample >= 1 &&
                        *parameters.sample == std::floor(*parameters.sample) &&
                        std::isfinite(*parameters.sample);
  if (parameters.sample && !is_share && !is_count)
    throw pg::Failure(ERRCODE_INVALID_PARAMETER_VALUE, "sample must be a share or a whole number", "",
                      "A value of 1 or more is a number of keys per family, a value below 1 a share of them; "
                      "NULL means all.");
  if (parameters.max_rate && *parameters.max_rate <= 0)
    throw pg::Failure(ERRCODE_INVALID_PARAMETER_VALUE, "max_rate must be greater than 0");
  // Checked first: a wrong server leaves no row in audits.
  const redis::Deployment deployment = ServerOptions(parameters.server, GetUserId());
  if (deployment.max_rate > 0)
    parameters.max_rate = static_cast<int>(
        std::min<long>(deployment.max_rate, parameters.max_rate.value_or(deployment.max_rate)));
  pg::Spi spi(true);
  ExecuteAudit(parameters, deployment, PG_ARGISNULL(2) ? 0 : PG_GETARG_DATUM(2));
  PG_RETURN_VOID();
}

// redis_migrate.drop_audit(audit_id bigint). Errors: 42704 no such audit, 42501 of another role.
PRM_FUNCTION(drop_audit) {
  using namespace prm;
  if (PG_ARGISNULL(0)) throw pg::Failure(ERRCODE_NULL_VALUE_NOT_ALLOWED, "audit_id must not be NULL");
  int64 const id = PG_GETARG_INT64(0);
  Oid const user = GetUserId();
  pg::Spi spi;
  pg::AsExtensionOwner as_owner;
  auto rows =
      pg::Spi::Execute("SELECT owner FROM redis_migrate.audit WHERE audit_id = $1", {pg::SqlParam::Int8(id)});
  if (rows.size() == 0)
    throw pg::Failure(ERRCODE_UNDEFINED_OBJECT, "there is no audit " + std::to_string(id), "",
                      "SELECT audit_id FROM redis_migrate.audits lists them.");
  pg::Owner const owner(rows[0].Value(0));
  if (!pg::HasOwnerRights(owner, user))
    throw pg::Failure(ERRCODE_INSUFFICIENT_PRIVILEGE, "must be owner of audit " + std::to_string(id),
                      pg::OwnerDetail(owner), pg::OwnerHint(owner, "audit", std::to_string(id)));
  pg::Spi::Execute("DELETE FROM redis_migrate.audit WHERE audit_id = $1", {pg::SqlParam::Int8(id)});
  PG_RETURN_VOID();
}
