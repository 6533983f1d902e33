// redis_migrate.preflight(server): checks whether a Redis can be migrated from, and what to fix first.
#include "connect/preflight_database.h"
#include "connect/preflight_feed.h"
#include "connect/preflight_live.h"
#include "connect/server.h"
#include "pg/arguments.h"
#include "pg/encoding.h"
#include "pg/entry.h"
#include "pg/identity.h"
#include "pg/settings.h"
#include "pg/spi.h"
#include "pg/time.h"
#include "pg/wait.h"
#include "rdb/dump.h"
#include "rdb/version.h"
#include "redis/error_words.h"
#include "redis/info.h"
#include "source/key_reply.h"

namespace prm {
namespace {

constexpr int64 kMostSampledBytes = 64 * 1024;
constexpr double kSkewWarnSeconds = 1;
constexpr double kSkewFailSeconds = 60;
constexpr double kHeadroomWarnShare = 0.1;

class Preflight {
 public:
  explicit Preflight(ReturnSetInfo *result) : result_(result) {}

  void Run(const std::string &server) {
    deployment_ = ServerOptions(server, GetUserId());
    const std::string &username = deployment_.connection.username;
    std::string scratch;
    username_ = username.empty() ? "default" : std::string(pg::TextFromUtf8(username, scratch).value_or("?"));
    LookAtMigrations(server);
    if (!Connect(redis::OpenServer(deployment_, waiter_))) return;
    if (deployment_.seeds.empty())
      CheckServer();
    else
      CheckCluster();
    if (may_track_) CheckFeed(deployment_, waiter_, *may_track_, [&](auto &&...row) { Add(row...); });
    CheckDatabase(server, [&](auto &&...row) { Add(row...); });
  }

 private:
  void CheckServer() {
    info_.reset();
    if (CheckInfo()) {
      CheckServerState();
      CheckMemory();
    }
    CheckRights();
    CheckVersion();
    CheckClock();
    if (has_replication_ && info_)
      CheckReplication(*connection_, *info_, username_, [&](auto &&...row) { Add(row...); });
  }

  // How the caller's migrations read the server.
  void LookAtMigrations(const std::string &server) {
    pg::Spi spi;
    auto const rows = pg::Spi::Execute(
        R"sql(SELECT source, bool_and(databases IS NOT NULL)
              FROM redis_migrate.migrations
              WHERE server OPERATOR(pg_catalog.=) $1
              GROUP BY source)sql",
        {pg::SqlParam::Text(server)});
    for (uint64 i = 0; i < rows.size(); ++i) {
      std::string const source = rows[i].Text(0);
      if (source == "replication") has_replication_ = true;
      if (source == "scan") may_track_ = rows[i].Bool(1);
    }
  }

  // The nodes that a run would read, one after the other.
  void CheckCluster() {
    const auto topology = redis::FindTopology(deployment_, waiter_);
    if (!topology.ok()) {
      Add("cluster", CheckStatus::kFail, topology.error().message + ": " + topology.error().detail,
          topology.error().hint);
      return;
    }
    redis::Slots served;
    size_t replicas = 0;
    for (const redis::ClusterShard &shard : topology.value().shards) {
      served |= shard.slots;
      replicas += shard.replicas.size();
    }
    const std::string nodes = std::to_string(topology.value().shards.size()) + " masters and " +
                              std::to_string(replicas) + " replicas";
    if (served.all())
      Add("cluster", CheckStatus::kOk, nodes);
    else
      Add("cluster", CheckStatus::kFail, nodes + "; no node serves slots " + redis::SlotsToText(~served));
    for (const redis::ClusterShard &shard : topology.value().shards) {
      CheckClusterNode(shard.master, false);
      if (deployment_.read_from == redis::ReadFrom::kReplica)
        for (const redis::ClusterNode &replica : shard.replicas) CheckClusterNode(replica, true);
    }
    where_.clear();
  }

  void CheckClusterNode(const redis::ClusterNode &node, bool is_replica) {
    where_ = redis::HostAndPort(node.endpoint.host, node.endpoint.port) + ": ";
    if (!Connect(redis::OpenNode(deployment_, node.endpoint, waiter_))) return;
    CheckServer();
    if (is_replica) {
      CheckRight("READONLY", {"READONLY"}, "");
      return;
    }
    const bool sees_moves = CheckRight("CLUSTER NODES", {"CLUSTER", "NODES"},
                                       "slots being moved cannot be detected: move none during a run");
    CheckRight("DBSIZE", {"DBSIZE"}, "the progress of a run is not estimated");
    const auto moving = redis::FetchSlotMoves(*connection_);
    if (sees_moves && moving.ok() && moving.value().under_way.any())
      Add("slots", CheckStatus::kWarn,
          "slots " + redis::SlotsToText(moving.value().under_way) + " are being moved",
          "A run waits until the moves are complete, for pg_redis_migrate.reconnect_timeout.");
  }

  void Add(const char *check, CheckStatus status, const std::string &detail, const std::string &hint = "") {
    static constexpr const char *kNames[] = {"ok", "warn", "fail"};
    Datum values[4] = {pg::TextDatum(check), pg::TextDatum(kNames[static_cast<int>(status)]),
                       pg::TextDatum(where_ + detail), pg::TextDatum(hint)};
    bool nulls[4] = {false, false, false, hint.empty()};
    pg::Call([&] { tuplestore_putvalues(result_->setResult, result_->setDesc, values, nulls); });
  }

  // An unreachable server is an answer here, not an error; a wrong server name is an error.
  bool Connect(Result<std::unique_ptr<redis::Connection>> connection) {
    if (!connection.ok()) {
      const Error &error = connection.error();
      Add("reachable", CheckStatus::kFail,
          error.message + (error.detail.empty() ? "" : " (" + error.detail + ")"), error.hint);
      return false;
    }
    connection_ = std::move(connection.value());
    right_missing_ = keys_refused_ = false;
    rights_on_keys_.clear();
    unavailable_.clear();
    const std::string encryption = connection_->encryption();
    Add("reachable", CheckStatus::kOk,
        "connected to " + connection_->address() + (encryption.empty() ? "" : ", " + encryption));
    return true;
  }

  bool CheckInfo() {
    auto info = redis::FetchInfo(*connection_);
    if (!info.ok()) {
      Add("right to INFO", CheckStatus::kWarn, info.error().message,
          "ACL SETUSER " + username_ +
              " +info: without it databases, memory and restarts of Redis cannot be seen.");
      return false;
    }
    info_.emplace(std::move(info.value()));
    return true;
  }

  void CheckServerState() {
    Add("version", CheckStatus::kOk, "Redis " + info_->version());
    if (info_->Get("redis_mode") == "cluster" && deployment_.seeds.empty())
      Add("cluster", CheckStatus::kFail, "the server is a node of a cluster and has only some of the keys",
          "Set the server's option cluster 'on'.");
    bool is_replica = info_->role() == "slave";
    if (is_replica && info_->Get("master_link_status") != "up")
      Add("role", CheckStatus::kFail,
          "a replica whose link to its master is " + info_->Show("master_link_status"),
          "Wait until the replica has caught up, or read from the master.");
    else
      Add("role", is_replica ? CheckStatus::kWarn : CheckStatus::kOk,
          is_replica ? "replica: it may lag behind its master" : "master");
    if (info_->loading())
      Add("loading", CheckStatus::kFail, "the server is still loading its data",
          "Run preflight again when INFO shows loading:0.");
    uint64_t keys = 0;
    std::string databases;
    for (const redis::KeyspaceInfo &keyspace : info_->Keyspace()) {
      keys = redis::AddKeys(keys, keyspace.keys);
      databases += (databases.empty() ? "" : ", ") + std::string("db") + std::to_string(keyspace.db) + ": " +
                   std::to_string(keyspace.keys) + " keys, " + std::to_string(keyspace.expires) +
                   " with an expiry";
    }
    if (databases.empty())
      Add("databases", CheckStatus::kWarn, "no database has a key",
          "Check that this is the server you mean.");
    else
      Add("databases", CheckStatus::kOk, databases);
    int64 used =
        info_->GetInteger("used_memory_dataset").value_or(info_->GetInteger("used_memory").value_or(0));
    Add("archive size", CheckStatus::kOk,
        std::to_string(keys) + " keys, at most about " + std::to_string(used / (1024 * 1024) + 1) +
            " MB if all of them went to the archive");
  }

  void CheckMemory() {
    std::string policy = info_->Show("maxmemory_policy");
    int64 limit = info_->maxmemory().value_or(0);
    int64 used = info_->GetInteger("used_memory").value_or(0);
    if (limit == 0) {
      Add("memory", CheckStatus::kOk, "no maxmemory is set");
      return;
    }
    int64 headroom = limit - used;
    int64 in_flight = static_cast<int64>(pg::settings::bytes_in_flight_kb) * 1024;
    std::string detail = std::to_string(headroom / 1024) + " kB below maxmemory, policy " +
                         (policy.empty() ? "unknown" : policy);
    bool evicts = policy != "noeviction";
    if (headroom < 2 * in_flight)
      Add("memory", evicts ? CheckStatus::kFail : CheckStatus::kWarn, detail,
          evicts ? "Unread replies count towards maxmemory: reading could evict keys. Raise maxmemory or "
                   "lower pg_redis_migrate.bytes_in_flight."
                 : "Raise maxmemory or lower pg_redis_migrate.bytes_in_flight.");
    else if (evicts && static_cast<double>(headroom) < kHeadroomWarnShare * static_cast<double>(limit))
      Add("memory", CheckStatus::kWarn, detail, "Keys may be evicted while the migration runs.");
    else
      Add("memory", CheckStatus::kOk, detail);
  }

  // Commands that read values in pieces, and those that check that the pieces belong together.
  bool CheckPieces(const std::string &key) {
    struct Piece {
      const char *right;
      std::initializer_list<Bytes> command;
    };
    const Piece pieces[] = {
        {"+type", {"TYPE", key}},
        {"+strlen", {"STRLEN", key}},
        {"+getrange", {"GETRANGE", key, "0", "0"}},
        {"+llen", {"LLEN", key}},
        {"+lrange", {"LRANGE", key, "0", "0"}},
        {"+scard", {"SCARD", key}},
        {"+sscan", {"SSCAN", key, "0"}},
        {"+hlen", {"HLEN", key}},
        {"+hscan", {"HSCAN", key, "0"}},
        {"+zcard", {"ZCARD", key}},
        {"+zrevrange", {"ZREVRANGE", key, "0", "0"}},
        {"+xrange", {"XRANGE", key, "-", "+", "COUNT", "1"}},
        {"+xinfo", {"XINFO", "STREAM", key}},
        {"+xpending", {"XPENDING", key, "g"}},
    };
    std::string missing;
    if (TryCommand({"HPEXPIRETIME", key, "FIELDS", "1", "f"}) == Right::kRefused) missing = "+hpexpiretime";
    for (const Piece &piece : pieces)
      if (TryCommand(piece.command) != Right::kHeld)
        missing += std::string(missing.empty() ? "" : " ") + piece.right;
    if (!missing.empty())
      AddRight("read in pieces", missing,
               "values larger than pg_redis_migrate.max_reply_size are read by one DUMP, which Redis has to "
               "buffer");
    // EXEC first: without the right to it there is no way out of MULTI.
    const std::initializer_list<Bytes> watching[] = {{"EXEC"}, {"WATCH", key}, {"MULTI"}, {"EXEC"}};
    if (!std::all_of(std::begin(watching), std::end(watching),
                     [&](const auto &command) { return TryCommand(command) == Right::kHeld; }))
      AddRight("WATCH", "+watch +multi +exec",
               "without WATCH, MULTI and EXEC a value read in pieces is read again until two reads agree");
    return missing.empty();
  }

  // Tries each command on a key that does not exist: ACL DRYRUN would need a right of its own.
  void CheckRights() {
    const std::string key = "redis_migrate:preflight:no such key";
    const bool may_read_pieces = CheckPieces(key);
    CheckRight("SCAN", {"SCAN", "0", "COUNT", "1"}, "");
    CheckRight(
        "DUMP", {"DUMP", key},
        may_read_pieces ? "everything but short strings is read in pieces, which costs Redis more" : "");
    CheckRight("SELECT", {"SELECT", "0"}, "");
    const bool needs_time = NeedsTime(key);
    CheckRight(
        "TIME", {"TIME"},
        needs_time ? "" : "clocks cannot be compared, and streams with groups cannot be read in pieces");
    CheckRight("GETRANGE", {"GETRANGE", key, "0", "0"},
               "strings are read like other types, which costs Redis more");
    if (!CheckRight("MEMORY USAGE", {"MEMORY", "USAGE", key},
                    "sizes are unknown, so that everything but strings is read in pieces"))
      CheckRight("STRLEN", {"STRLEN", key}, "without MEMORY USAGE it tells the size of strings");
    // Redis before 7.0 refuses subcommands that it does not have as if there were a right to them.
    if (!needs_time)
      CheckRight("CLIENT NO-TOUCH", {"CLIENT", "NO-TOUCH", "ON"},
                 "reading makes keys look recently used, which affects eviction", Absence::kIsOldRelease);
    if (!unavailable_.empty()) {
      Add("rights", CheckStatus::kWarn, "could not be checked: " + unavailable_,
          "Run preflight again later.");
      return;
    }
    if (keys_refused_)
      Add("right to keys", CheckStatus::kWarn,
          "the user may not read every key: a run ends at the first one that it may not read, unless "
          "redis_migrate.skip_keys declares it",
          "ACL SETUSER " + username_ + (HasReadSelectors() ? " %R~*" + rights_on_keys_ : " ~*"));
    if (!right_missing_ && !keys_refused_)
      Add("rights", CheckStatus::kOk, "user " + username_ + " may run every command needed");
  }

  // Reads the version of DUMP payloads, which does not follow from the server's version, from the first small
  // value.
  void CheckVersion() {
    const std::vector<redis::KeyspaceInfo> keyspace =
        info_ ? info_->Keyspace() : std::vector<redis::KeyspaceInfo>();
    const std::string db = std::to_string(keyspace.empty() ? 0 : keyspace.front().db);
    if (TryCommand({"SELECT", db}) != Right::kHeld) return;
    const auto names = connection_->Command({"SCAN", "0", "COUNT", "10"}, source::kNamesLimit);
    if (!names.ok() || names.value().size() != 2) return;
    for (size_t i = 0; i < names.value().element(1).size(); ++i) {
      const auto name = names.value().element(1).element(i).String();
      if (!name) return;
      const auto memory = connection_->Command({"MEMORY", "USAGE", *name});
      if (!memory.ok()) return;
      if (memory.value().Integer().value_or(kMostSampledBytes + 1) > kMostSampledBytes) continue;
      const auto dump = connection_->Command({"DUMP", *name}, {redis::kSmallReply.bytes, true});
      if (!dump.ok()) return;
      const auto version = rdb::DumpVersion(dump.value().String().value_or(""));
      if (!version) continue;
      const std::string detail = "DUMP answers in RDB version " + std::to_string(*version);
      if (rdb::IsSupportedVersion(*version))
        Add("payloads", CheckStatus::kOk, detail);
      else
        Add("payloads", CheckStatus::kWarn,
            detail +
                ", which this release does not know: values are read in pieces, which costs Redis more, "
                "and those of modules are rejected",
            "Update pg_redis_migrate.");
      return;
    }
  }

  // Whether expiries are read as relative times, which needs TIME.
  bool NeedsTime(const std::string &key) {
    const Right right = TryCommand({"PEXPIRETIME", key});
    if (right == Right::kHeld) return false;
    if (right == Right::kUnknown) {  // before Redis 7.0
      CheckRight("PTTL", {"PTTL", key}, "");
      return true;
    }
    const std::string refusal = refusal_;
    const bool has_others = TryCommand({"PTTL", key}) == Right::kHeld && TryCommand({"TIME"}) == Right::kHeld;
    refusal_ = refusal;
    AddRight("PEXPIRETIME",
             has_others ? "expiries are read by TIME and PTTL instead, which costs Redis more" : "");
    return false;
  }

  // The server's answer to a command.
  enum class Right { kHeld, kRefused, kUnknown };
  enum class Absence { kMatters, kIsOldRelease };

  Right TryCommand(std::initializer_list<Bytes> command) {
    auto reply = connection_->Command(command);
    if (reply.ok()) return Right::kHeld;
    const Error &error = reply.error();
    if (error.code == ErrorCode::kConnectionFailure || error.code == ErrorCode::kTimeout)
      throw pg::Failure(error);
    refusal_ = error.message;
    if (error.code == ErrorCode::kUnavailable) unavailable_ = error.message + " (" + error.detail + ")";
    // Redis looks at the command first, then at its keys.
    const bool is_about_keys = error.detail.find(redis::kOnKey) != std::string::npos;
    const bool is_refused = error.code == ErrorCode::kPermissionDenied;
    if (is_refused && is_about_keys) {
      keys_refused_ = true;
      AddRightOnKeys(command);
    }
    if (is_refused && !is_about_keys) return Right::kRefused;
    return error.detail.rfind(redis::kUnknown, 0) == 0 ? Right::kUnknown : Right::kHeld;
  }

  // A selector may have the command for other keys. A key pattern of the user itself, outside of selectors,
  // does not reach it, and nothing tells where it stands.
  void AddRightOnKeys(std::initializer_list<Bytes> command) {
    std::string right = " +" + Lower(std::string(command.begin()[0]));
    if (right == " +memory") right += "|usage";
    if ((rights_on_keys_ + " ").find(right + " ") == std::string::npos) rights_on_keys_ += right;
  }

  // Reports a missing right. `without` says what is done instead, empty if nothing.
  bool CheckRight(const char *name, std::initializer_list<Bytes> command, const char *without,
                  Absence absence = Absence::kMatters) {
    const Right right = TryCommand(command);
    if (right == Right::kHeld || (right == Right::kUnknown && absence == Absence::kIsOldRelease)) return true;
    AddRight(name, without);
    return false;
  }

  // After TryCommand was refused.
  void AddRight(const std::string &name, const char *without) {
    std::string right = "+" + Lower(name);
    std::replace(right.begin(), right.end(), ' ', '|');
    AddRight(name, right, without);
  }

  void AddRight(const std::string &name, const std::string &grants, const char *without) {
    right_missing_ = true;
    const bool needed = *without == '\0';
    Add(("right to " + name).c_str(), needed ? CheckStatus::kFail : CheckStatus::kWarn,
        refusal_ + (needed ? "" : std::string(": ") + without), "ACL SETUSER " + username_ + " " + grants);
  }

  // Since Redis 7.0 a key pattern can allow only reading.
  bool HasReadSelectors() const { return info_ && std::atoi(std::string(info_->version()).c_str()) >= 7; }

  static std::string Lower(std::string text) {
    for (char &c : text) c = static_cast<char>(pg_ascii_tolower(static_cast<unsigned char>(c)));
    return text;
  }

  void CheckClock() {
    TimestampTz before = GetCurrentTimestamp();
    auto reply = connection_->Command({"TIME"});
    TimestampTz after = GetCurrentTimestamp();
    if (!reply.ok()) return;
    const auto time = source::ParseTime(*connection_, reply.value());
    if (!time.ok()) {
      Add("clock", CheckStatus::kFail, time.error().message, "Check that this is the server you mean.");
      return;
    }
    double skew = pg::SecondsOfUs(pg::FromUnixMs(time.value()) - (before + (after - before) / 2));
    char detail[96];
    snprintf(detail, sizeof detail, "Redis' clock is %.3f s %s this server's", skew < 0 ? -skew : skew,
             skew < 0 ? "behind" : "ahead of");
    double size = skew < 0 ? -skew : skew;
    CheckStatus status = size > kSkewFailSeconds   ? CheckStatus::kFail
                         : size > kSkewWarnSeconds ? CheckStatus::kWarn
                                                   : CheckStatus::kOk;
    Add("clock", status, detail,
        status == CheckStatus::kOk
            ? ""
            : "Expiries are absolute times: synchronise the clocks (NTP) before rows expire here.");
  }

  ReturnSetInfo *result_;
  pg::ExternalDescriptor descriptor_;
  pg::LatchWaiter waiter_;
  redis::Deployment deployment_;
  std::string where_;  // names the node of a cluster before each detail
  std::string username_;
  std::string refusal_;      // the server's reply to the last refused command
  std::string unavailable_;  // why rights could not be checked
  bool right_missing_ = false;
  bool keys_refused_ = false;   // some keys may not be read
  std::string rights_on_keys_;  // to the commands that were refused for their key
  bool has_replication_ = false;
  std::optional<bool> may_track_;  // of migrations that scan, if there are any: all name their databases
  std::unique_ptr<redis::Connection> connection_;
  std::optional<redis::ServerInfo> info_;
};

}  // namespace
}  // namespace prm

// redis_migrate.preflight(server name) → (check_name, status, detail, hint). Errors: 42704, 42501 for the
// server object; problems of Redis itself are rows. Waits for the network within the caller's snapshot.
PRM_FUNCTION(preflight) {
  if (PG_ARGISNULL(0)) throw prm::pg::Failure(ERRCODE_NULL_VALUE_NOT_ALLOWED, "server must not be NULL");
  prm::pg::Call([&] { InitMaterializedSRF(fcinfo, 0); });
  prm::Preflight(reinterpret_cast<ReturnSetInfo *>(fcinfo->resultinfo)).Run(NameStr(*PG_GETARG_NAME(0)));
  return static_cast<Datum>(0);
}
