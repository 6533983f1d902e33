// CALL redis_migrate.audit(…): finds the key families of a server.
#include <algorithm>
#include <chrono>
#include <cmath>

#include "core/family_tree.h"
#include "migrate/audit_record.h"
#include "pg/arguments.h"
#include "pg/entry.h"
#include "pg/identity.h"
#include "pg/server.h"
#include "pg/spi.h"
#include "redis/info.h"
#include "source/survey.h"

namespace prm::migrate {
namespace {

using pg::Failure;
using pg::Spi;
using source::Question;

// Values of each family that are read, to tell how they are encoded.
constexpr uint64_t kValuesPerFamily = 200;
constexpr size_t kLargestKeys = 100;  // of each database
constexpr long kScanCount = 1000;
// Under a rate ceiling, pages as large as a tenth of a second allows.
constexpr int kPagesPerSecond = 10;
constexpr double kSaveEverySeconds = 1;

double Now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

// Decides what is asked about a key by what is known of its family so far. SCAN returns keys in no order that
// means anything, so that the first ones are as good as any.
class Sampling : public source::Curiosity {
 public:
  Sampling(std::optional<double> sample, FamilyTree *const &tree) : sample_(sample), tree_(tree) {}

  // Answers come a page later, so that what was asked for counts.
  Question Ask(int, Bytes key) override {
    FamilyStats *family = tree_->Find(key);
    if (family == nullptr) return Question::kFactsAndValue;
    FamilyStats::Plan &plan = family->plan;
    ++plan.names;
    if (sample_) {
      double const wanted = *sample_ < 1 ? *sample_ * static_cast<double>(plan.names) : *sample_;
      if (static_cast<double>(std::max(plan.facts, family->asked)) >= wanted) return Question::kName;
    }
    ++plan.facts;
    if (std::max(plan.values, family->values) >= kValuesPerFamily) return Question::kFacts;
    ++plan.values;
    return Question::kFactsAndValue;
  }

 private:
  std::optional<double> sample_;
  FamilyTree *const &tree_;
};

class Audit {
 public:
  Audit(const AuditParameters &parameters, Datum max_duration)
      : parameters_(parameters),
        record_(parameters, max_duration, parameters.max_seconds.has_value()),
        tree_(std::make_unique<FamilyTree>()),
        tree_pointer_(tree_.get()),
        sampling_(parameters.sample, tree_pointer_),
        start_(Now()),
        saved_at_(start_) {
    Spi::Commit();
  }

  int64 id() const { return record_.id(); }

  void Execute() {
    // Nothing is held while the network is waited for: each Commit comes right before a wait.
    pg::ServerConnection connection(parameters_.server, GetUserId());
    Spi::Commit();
    source::SurveyOptions options;
    options.scan_count = kScanCount;
    if (parameters_.max_rate)
      options.scan_count = std::clamp<long>(*parameters_.max_rate / kPagesPerSecond, 10, kScanCount);
    options.databases = Databases(*connection);
    several_ = options.databases.size() > 1;
    Spi::Commit();
    auto survey = pg::ValueOrThrow(source::Survey::Open(*connection, options, sampling_));
    source::SurveyPage page;
    for (;;) {
      auto next = survey->Next(page);
      if (!next.ok()) throw Failure(next.error());
      if (!next.value()) break;
      db_ = page.db;
      for (const source::SurveyedKey &key : page.keys) Take(key);
      if (page.ends_db) {
        StoreFamilies();
      } else if (Now() - saved_at_ >= kSaveEverySeconds) {
        record_.Save(counts_);
        Spi::Commit();
        saved_at_ = Now();
      }
      if (OutOfTime()) {
        Note(*survey);
        StoreFamilies();
        Conclude("stopped", "max_duration ended it before all keys were seen");
        return;
      }
      Pace();
    }
    Note(*survey);
    Conclude("completed", std::nullopt);
  }

  // After an error: what was found until then is kept.
  void Fail(const std::string &state, int sqlstate, const std::string &message) {
    pg::Call([] {
      Snapshot of_portal = ActivePortal != nullptr ? ActivePortal->portalSnapshot : nullptr;
      while (ActiveSnapshotSet() && GetActiveSnapshot() != of_portal) PopActiveSnapshot();
      SPI_rollback();
    });
    StoreFamilies();
    record_.Finish(state, counts_, pg::SqlStateText(sqlstate), message);
    Spi::Commit();
  }

 private:
  // The databases to look at. A server that does not tell which have keys has at least the first.
  std::vector<int> Databases(redis::Connection &connection) {
    auto info = redis::FetchInfo(connection);
    if (!info.ok()) {
      if (info.error().code != ErrorCode::kPermissionDenied && info.error().code != ErrorCode::kServerError)
        throw Failure(info.error());
      record_.AddNote("INFO may not be run: only " +
                      std::string(parameters_.databases ? "the databases named" : "database 0") +
                      " was looked at");
      return parameters_.databases ? *parameters_.databases : std::vector<int>{0};
    }
    std::vector<int> databases;
    int64 keys = 0;
    for (const redis::KeyspaceInfo &keyspace : info.value().Keyspace()) {
      if (parameters_.databases && std::find(parameters_.databases->begin(), parameters_.databases->end(),
                                             keyspace.db) == parameters_.databases->end())
        continue;
      databases.push_back(keyspace.db);
      keys += static_cast<int64>(keyspace.keys);
    }
    policy_ = info.value().Get("maxmemory_policy");
    // Not while it evicts by when keys were used (redis 7.0 src/object.c).
    bool const shares_integers =
        info.value().maxmemory().value_or(0) == 0 ||
        (policy_.find("lru") == std::string::npos && policy_.find("lfu") == std::string::npos);
    record_.SetServer(std::string(info.value().version()), policy_, keys, shares_integers);
    if (databases.empty()) databases.push_back(0);
    return databases;
  }

  void Take(const source::SurveyedKey &key) {
    ++counts_.keys;
    bool const asked = key.question != Question::kName;
    if (key.vanished) {
      ++counts_.vanished;
      return;
    }
    if (asked) ++counts_.asked;
    if (!key.refusal.empty()) ++counts_.odd["Redis refused: " + key.refusal];
    if (key.name.empty())
      ++counts_.odd["empty name"];
    else if (!pg::ValidInServerEncoding(key.name))
      ++counts_.odd["name is not valid text"];
    tree_->Add(key.name, asked ? &key.facts : nullptr);
    if (key.facts.bytes) TakeLargest(key);
    if (key.facts.kind) read_values_ = true;
  }

  void TakeLargest(const source::SurveyedKey &key) {
    auto larger = [](const LargeKey &a, const LargeKey &b) { return a.bytes > b.bytes; };
    uint64_t const bytes = *key.facts.bytes;
    if (largest_.size() == kLargestKeys) {
      if (bytes <= largest_.front().bytes) return;
      std::pop_heap(largest_.begin(), largest_.end(), larger);
      largest_.pop_back();
    }
    largest_.push_back({bytes, key.name, key.facts.type, key.facts.ttl_ms});
    std::push_heap(largest_.begin(), largest_.end(), larger);
  }

  bool OutOfTime() const { return parameters_.max_seconds && Now() - start_ >= *parameters_.max_seconds; }

  // Waits until the ceiling allows what has been read, or the time is over.
  void Pace() {
    if (!parameters_.max_rate) return;
    double due = start_ + static_cast<double>(counts_.keys) / *parameters_.max_rate;
    if (parameters_.max_seconds) due = std::min(due, start_ + *parameters_.max_seconds);
    double const wait = due - Now();
    if (wait > 0) pg::Sleep(std::lround(wait * 1000));
  }

  void StoreFamilies() {
    if (tree_->root().keys == 0) return;
    tree_->Finish();
    std::vector<Family> const families = FindFamilies(*tree_);
    for (const Family &family : families)
      for (const auto &[reason, keys] : family.odd)
        counts_.odd["capture " + reason] += static_cast<int64>(keys);
    if (tree_->capped())
      record_.AddNote(
          "database " + std::to_string(db_) +
          " has more different names than an audit tells apart: families may have been taken together");
    std::sort(largest_.begin(), largest_.end(), [](const LargeKey &a, const LargeKey &b) {
      return a.bytes != b.bytes ? a.bytes > b.bytes : a.key < b.key;
    });
    record_.AddFamilies(db_, several_, families, largest_);
    record_.Save(counts_);
    Spi::Commit();
    saved_at_ = Now();
    largest_.clear();
    tree_ = std::make_unique<FamilyTree>();
    tree_pointer_ = tree_.get();
  }

  void Note(const source::Survey &survey) {
    std::string missing;
    for (const std::string &command : survey.missing()) missing += (missing.empty() ? "" : ", ") + command;
    if (!missing.empty()) record_.AddNote("not to be had from this server with this user: " + missing);
    if (policy_.find("lfu") != std::string::npos)
      record_.AddNote("under " + policy_ +
                      " Redis knows how often keys are used, not how long they were idle");
    if (read_values_ && !survey.no_touch())
      record_.AddNote("up to " + std::to_string(kValuesPerFamily) +
                      " keys of each family were touched by reading their values");
    if (parameters_.sample) record_.AddNote("sampled: bytes and expiries are estimates");
  }

  void Conclude(const std::string &state, const std::optional<std::string> &message) {
    record_.Finish(state, counts_, std::nullopt, message);
    Spi::Commit();
    int64 odd = 0;
    for (const auto &[reason, keys] : counts_.odd) odd += keys;
    std::string notes;
    for (const std::string &note : record_.notes()) notes += (notes.empty() ? "" : "; ") + note;
    pg::Report(NOTICE,
               "audit " + std::to_string(id()) + " of server \"" + parameters_.server + "\" " + state + ": " +
                   std::to_string(counts_.keys) + " keys in " + std::to_string(record_.families()) +
                   " families, " + std::to_string(record_.bytes()) + " bytes, " +
                   std::to_string(record_.without_expiry()) + " without expiry, " +
                   std::to_string(counts_.vanished) + " vanished, " + std::to_string(odd) + " odd" +
                   (message ? "; " + *message : ""),
               notes,
               "SELECT * FROM redis_migrate.audit_families WHERE audit_id = " + std::to_string(id()) +
                   " ORDER BY keys DESC.");
  }

  const AuditParameters &parameters_;
  AuditRecord record_;
  AuditCounts counts_;
  std::unique_ptr<FamilyTree> tree_;
  FamilyTree *tree_pointer_;
  Sampling sampling_;
  std::vector<LargeKey> largest_;  // a heap, the smallest first
  std::string policy_;
  bool several_ = false;
  bool read_values_ = false;
  int db_ = 0;
  double start_;
  double saved_at_;
};

void ExecuteAudit(const AuditParameters &parameters, Datum max_duration) {
  Audit audit(parameters, max_duration);
  try {
    audit.Execute();
  } catch (const pg::PgError &error) {
    bool const cancelled = error.sqlstate() == ERRCODE_QUERY_CANCELED;
    audit.Fail(cancelled ? "stopped" : "failed", error.sqlstate(), error.what());
    throw;
  } catch (const std::bad_alloc &) {
    audit.Fail("failed", ERRCODE_OUT_OF_MEMORY, "out of memory");
    throw;
  } catch (const Failure &failure) {
    audit.Fail("failed", failure.sqlstate(), failure.message());
    throw;
  }
}

double Seconds(Datum interval) {
  auto *value = DatumGetIntervalP(interval);
  return static_cast<double>(value->time) / 1e6 + (value->day + 30.0 * value->month) * SECS_PER_DAY;
}

}  // namespace
}  // namespace prm::migrate

// redis_migrate.audit(server name, sample float8, max_duration interval, databases int4[], max_rate int4):
// see the SQL comment and docs/audit.md. Errors: 2D000 in a transaction block, 22023 for arguments that mean
// nothing, those of the server object and of the connection.
PRM_FUNCTION(audit) {
  using namespace prm;
  using namespace prm::migrate;
  pg::RequireNonAtomic(fcinfo, "redis_migrate.audit commits as it goes");
  if (PG_ARGISNULL(0)) throw pg::Failure(ERRCODE_NULL_VALUE_NOT_ALLOWED, "server must not be NULL");
  AuditParameters parameters;
  parameters.server = NameStr(*PG_GETARG_NAME(0));
  if (!PG_ARGISNULL(1)) parameters.sample = PG_GETARG_FLOAT8(1);
  if (!PG_ARGISNULL(2)) parameters.max_seconds = Seconds(PG_GETARG_DATUM(2));
  parameters.databases = pg::OptionalInt4ArrayArgument(fcinfo, 3);
  if (!PG_ARGISNULL(4)) parameters.max_rate = PG_GETARG_INT32(4);
  if (parameters.sample && !(*parameters.sample > 0))
    throw pg::Failure(
        ERRCODE_INVALID_PARAMETER_VALUE, "sample must be greater than 0", "",
        "From 1 on it is a number of keys of each family, below 1 a share of them; NULL asks about all.");
  if (parameters.max_seconds && !(*parameters.max_seconds > 0))
    throw pg::Failure(ERRCODE_INVALID_PARAMETER_VALUE, "max_duration must be greater than 0");
  if (parameters.max_rate && *parameters.max_rate <= 0)
    throw pg::Failure(ERRCODE_INVALID_PARAMETER_VALUE, "max_rate must be greater than 0");
  // A wrong server is no audit.
  const redis::Deployment deployment = pg::ServerOptions(parameters.server, GetUserId());
  if (!deployment.seeds.empty())
    throw pg::Failure(ERRCODE_FEATURE_NOT_SUPPORTED,
                      "server \"" + parameters.server + "\" is a cluster, which cannot be audited as a whole",
                      "",
                      "Create a server for one of its masters, without the option that makes it a cluster.");
  if (deployment.max_rate > 0)
    parameters.max_rate = static_cast<int>(
        std::min<long>(deployment.max_rate, parameters.max_rate.value_or(deployment.max_rate)));
  pg::Spi spi(true);
  ExecuteAudit(parameters, PG_ARGISNULL(2) ? 0 : PG_GETARG_DATUM(2));
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
      pg::Spi::Execute("SELECT pg_has_role($2, owner, 'USAGE') FROM redis_migrate.audit WHERE audit_id = $1",
                       {pg::SqlParam::Int8(id), pg::SqlParam::OidOf(user)});
  if (rows.size() == 0)
    throw pg::Failure(ERRCODE_UNDEFINED_OBJECT, "there is no audit " + std::to_string(id), "",
                      "SELECT audit_id FROM redis_migrate.audits lists them.");
  if (!rows[0].Bool(0))
    throw pg::Failure(ERRCODE_INSUFFICIENT_PRIVILEGE, "must be owner of audit " + std::to_string(id));
  pg::Spi::Execute("DELETE FROM redis_migrate.audit WHERE audit_id = $1", {pg::SqlParam::Int8(id)});
  PG_RETURN_VOID();
}
