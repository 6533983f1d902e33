// redis_migrate.preflight(server): whether a Redis can be migrated from, and what to mend first.
#include "pg/arguments.h"
#include "pg/entry.h"
#include "pg/server.h"
#include "pg/settings.h"
#include "pg/spi.h"
#include "pg/wait.h"
#include "redis/info.h"

namespace prm::migrate {
namespace {

constexpr double kSkewWarnSeconds = 1;
constexpr double kSkewFailSeconds = 60;
constexpr double kHeadroomWarnShare = 0.1;

enum class CheckStatus { kOk, kWarn, kFail };

class Preflight {
 public:
  explicit Preflight(ReturnSetInfo *result) : result_(result) {}

  void Run(const std::string &server) {
    if (!Connect(server)) return;
    if (CheckInfo()) {
      CheckServerState();
      CheckMemory();
    }
    CheckRights();
    CheckClock();
    CheckSettings();
  }

 private:
  void Add(const char *check, CheckStatus status, const std::string &detail, const std::string &hint = "") {
    static constexpr const char *kNames[] = {"ok", "warn", "fail"};
    Datum values[4] = {pg::TextDatum(check), pg::TextDatum(kNames[static_cast<int>(status)]),
                       pg::TextDatum(detail), pg::TextDatum(hint)};
    bool nulls[4] = {false, false, false, hint.empty()};
    pg::Call([&] { tuplestore_putvalues(result_->setResult, result_->setDesc, values, nulls); });
  }

  // An unreachable server is an answer here, not an error; a wrong server name is an error.
  bool Connect(const std::string &server) {
    redis::ConnectionOptions options = pg::ServerOptions(server, GetUserId());
    username_ = options.username.empty() ? "default" : options.username;
    auto connection = redis::Connection::Open(options, waiter_);
    if (!connection.ok()) {
      const Error &error = connection.error();
      Add("reachable", CheckStatus::kFail,
          error.message + (error.detail.empty() ? "" : " (" + error.detail + ")"), error.hint);
      return false;
    }
    connection_ = std::move(connection.value());
    Add("reachable", CheckStatus::kOk, "connected to " + connection_->address());
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
    Add("version", CheckStatus::kOk, "Redis " + std::string(info_->version()));
    bool is_replica = info_->role() == "slave";
    if (is_replica && info_->Get("master_link_status") != "up")
      Add("role", CheckStatus::kFail,
          "a replica whose link to its master is " + std::string(info_->Get("master_link_status")),
          "Wait until the replica has caught up, or read from the master.");
    else
      Add("role", is_replica ? CheckStatus::kWarn : CheckStatus::kOk,
          is_replica ? "replica: it may lag behind its master" : "master");
    if (info_->loading())
      Add("loading", CheckStatus::kFail, "the server is still loading its data",
          "Run preflight again when INFO shows loading:0.");
    int64 keys = 0;
    std::string databases;
    for (const redis::KeyspaceInfo &keyspace : info_->Keyspace()) {
      keys += static_cast<int64>(keyspace.keys);
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
    std::string policy(info_->Get("maxmemory_policy"));
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

  // Whether the user may run a command: an error that is not about rights says so too.
  bool MayRun(std::initializer_list<Bytes> command, std::string *refusal = nullptr) {
    auto reply = connection_->Command(command);
    if (reply.ok()) return true;
    const Error &error = reply.error();
    if (error.code == ErrorCode::kConnectionFailure || error.code == ErrorCode::kTimeout)
      throw pg::Failure(error);
    if (refusal != nullptr) *refusal = error.message;
    return error.code == ErrorCode::kServerError && (error.detail.find(" key") != std::string::npos ||
                                                     error.detail.find("without MULTI") != std::string::npos);
  }

  // Commands that read values in pieces, and those that say whether the pieces belong together.
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
        {"+xrange", {"XRANGE", key, "-", "+"}},
        {"+xinfo", {"XINFO", "STREAM", key}},
        {"+xpending", {"XPENDING", key, "g"}},
    };
    std::string missing;
    for (const Piece &piece : pieces)
      if (!MayRun(piece.command)) missing += std::string(missing.empty() ? "" : " ") + piece.right;
    if (!missing.empty())
      Add("right to read in pieces", CheckStatus::kWarn,
          "values that are larger than pg_redis_migrate.max_reply_size are read by one DUMP, which Redis has "
          "to "
          "hold",
          "ACL SETUSER " + username_ + " ~* " + missing);
    // EXEC first: who may not use it could not leave a MULTI.
    if (!MayRun({"EXEC"}) || !MayRun({"WATCH", key}) || !MayRun({"MULTI"}) || !MayRun({"EXEC"}))
      Add("right to WATCH", CheckStatus::kWarn,
          "without WATCH, MULTI and EXEC a value that is read in pieces is read until it is the same twice",
          "ACL SETUSER " + username_ + " ~* +watch +multi +exec");
    return missing.empty();
  }

  // Tries each command on a key that does not exist: ACL DRYRUN would need a right of its own.
  void CheckRights() {
    struct Right {
      const char *command;
      std::initializer_list<Bytes> arguments;
      bool needed;
      const char *without;
    };
    const std::string key = "redis_migrate:preflight:no such key";
    bool may_read_pieces = CheckPieces(key);
    const Right rights[] = {
        {"SCAN", {"SCAN", "0", "COUNT", "1"}, true, ""},
        {"DUMP",
         {"DUMP", key},
         !may_read_pieces,
         "everything but short strings is read in pieces, which costs Redis more"},
        {"SELECT", {"SELECT", "0"}, true, ""},
        {"PEXPIRETIME", {"PEXPIRETIME", key}, true, ""},
        {"GETRANGE",
         {"GETRANGE", key, "0", "0"},
         false,
         "without it strings are read like other types, which costs Redis more"},
        {"MEMORY USAGE",
         {"MEMORY", "USAGE", key},
         false,
         "sizes are unknown, so that everything but strings is read in pieces"},
        {"STRLEN", {"STRLEN", key}, false, "without MEMORY USAGE it tells the size of strings"},
        {"TIME", {"TIME"}, false, "the clocks cannot be compared"},
    };
    bool missing = false;
    for (const Right &right : rights) {
      auto reply = connection_->Command(right.arguments);
      if (reply.ok()) continue;
      if (reply.error().code == ErrorCode::kConnectionFailure || reply.error().code == ErrorCode::kTimeout)
        throw pg::Failure(reply.error());
      std::string command = right.command;
      bool old = command == "PEXPIRETIME" && reply.error().code == ErrorCode::kServerError;
      if (old) continue;  // before Redis 7.0: PTTL and TIME serve
      missing = true;
      std::string grant = command == "MEMORY USAGE" ? "+memory|usage" : "+" + Lower(command);
      Add(("right to " + command).c_str(), right.needed ? CheckStatus::kFail : CheckStatus::kWarn,
          reply.error().message + (right.needed ? "" : std::string(": ") + right.without),
          "ACL SETUSER " + username_ + " ~* " + grant);
    }
    if (!missing)
      Add("rights", CheckStatus::kOk, "user " + username_ + " may run every command that is needed");
  }

  static std::string Lower(std::string text) {
    for (char &c : text) c = static_cast<char>(pg_ascii_tolower(static_cast<unsigned char>(c)));
    return text;
  }

  void CheckClock() {
    TimestampTz before = GetCurrentTimestamp();
    auto reply = connection_->Command({"TIME"});
    TimestampTz after = GetCurrentTimestamp();
    if (!reply.ok() || !reply.value().IsArray() || reply.value().size() != 2) return;
    auto number = [](Bytes text) { return std::stod(std::string(text)); };
    constexpr double kEpochDifference =
        static_cast<double>(POSTGRES_EPOCH_JDATE - UNIX_EPOCH_JDATE) * SECS_PER_DAY;
    double redis_time = number(reply.value().element(0).AsBytes()) +
                        number(reply.value().element(1).AsBytes()) / 1e6 - kEpochDifference;
    double here = static_cast<double>(before + (after - before) / 2) / 1e6;
    double skew = redis_time - here;
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

  void CheckSettings() {
    auto setting = [](const char *name) {
      return std::string(
          pg::Call([&] { return const_cast<const char *>(GetConfigOptionByName(name, nullptr, false)); }));
    };
    if (setting("server_encoding") != "UTF8")
      Add("server encoding", CheckStatus::kWarn, "the database has encoding " + setting("server_encoding"),
          "Keys and values that are not valid in it are rejected; UTF8 takes most.");
    else
      Add("server encoding", CheckStatus::kOk, "UTF8");
    if (setting("statement_timeout") != "0")
      Add("statement_timeout", CheckStatus::kWarn,
          "it is " + setting("statement_timeout") + " in this session, and covers a whole CALL of run",
          "SET statement_timeout = 0 in the session that runs the migration. A run that it ends goes on at "
          "the next CALL.");
    else
      Add("statement_timeout", CheckStatus::kOk, "not set");
    if (setting("idle_in_transaction_session_timeout") != "0")
      Add("idle_in_transaction_session_timeout", CheckStatus::kOk,
          "set; a run is never idle in a transaction");
    if (pg::Call([] { return RecoveryInProgress(); }))
      Add("recovery", CheckStatus::kFail, "this server is a standby and cannot be written to",
          "Run the migration on the primary.");
  }

  ReturnSetInfo *result_;
  pg::ExternalDescriptor descriptor_;
  pg::LatchWaiter waiter_;
  std::string username_;
  std::unique_ptr<redis::Connection> connection_;
  std::optional<redis::ServerInfo> info_;
};

}  // namespace
}  // namespace prm::migrate

// redis_migrate.preflight(server name) → (check_name, status, detail, hint). Errors: 42704, 42501 for the
// server object; what is wrong with Redis itself is a row. Waits for the network within the caller's
// snapshot.
PRM_FUNCTION(preflight) {
  if (PG_ARGISNULL(0)) throw prm::pg::Failure(ERRCODE_NULL_VALUE_NOT_ALLOWED, "server must not be NULL");
  prm::pg::Call([&] { InitMaterializedSRF(fcinfo, 0); });
  prm::migrate::Preflight(reinterpret_cast<ReturnSetInfo *>(fcinfo->resultinfo))
      .Run(NameStr(*PG_GETARG_NAME(0)));
  return static_cast<Datum>(0);
}
