#include "connect/preflight_live.h"

#include <sys/statvfs.h>

#include <charconv>
#include <cmath>

#include "connect/database_files.h"
#include "pg/encoding.h"
#include "pg/error.h"
#include "pg/settings.h"

namespace prm {
namespace {

constexpr double kMb = 1024 * 1024;

// Assumptions, since nobody tells: how fast a server saves a snapshot, and how fast one is stored here.
constexpr double kSavedBytesPerSecond = 50 * kMb;
constexpr double kLoadedBytesPerSecond = 10 * kMb;

// An interruption that should not cost a new snapshot: a restart of either server, a fail-over.
constexpr double kInterruptionSeconds = 300;
constexpr double kLeastBacklog = 64 * kMb;
// A replica may be so far behind at any time, by a single large value or a pause of the network.
constexpr double kLeastBuffer = 16 * kMb;
constexpr int64 kLongestDelaySeconds = 30;
constexpr int64 kLongestShutdownSeconds = 60;
constexpr double kLongestSave = 24 * 3600;
constexpr int64 kMost = int64{1} << 60;  // no server has as much of anything

std::string Mb(double bytes) { return std::to_string(static_cast<int64>(std::ceil(bytes / kMb))); }

std::optional<int64> ParseNumber(Bytes text) {
  int64 number = 0;
  auto const [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  bool const is_whole = error == std::errc() && end == text.data() + text.size();
  return is_whole && number >= 0 && number <= kMost ? std::optional(number) : std::nullopt;
}

std::vector<Bytes> Words(Bytes text) {
  std::vector<Bytes> words;
  while (!text.empty()) {
    size_t const end = std::min(text.find(' '), text.size());
    if (end > 0) words.push_back(text.substr(0, end));
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  return words;
}

class ReplicationCheck {
 public:
  ReplicationCheck(redis::Connection &connection, const redis::ServerInfo &info, const std::string &username,
                   const AddCheck &add)
      : connection_(connection), info_(info), username_(username), add_(add) {
    auto const number = [&](const char *field) {
      return static_cast<double>(info.GetInteger(field).value_or(0));
    };
    // Reads are part of it, so there is no more to write.
    Bytes const kbps = info.Get("instantaneous_input_kbps");  // with decimals
    written_per_second_ = static_cast<double>(ParseNumber(kbps.substr(0, kbps.find('.'))).value_or(0)) * 1024;
    data_bytes_ =
        info.GetInteger("used_memory_dataset") ? number("used_memory_dataset") : number("used_memory");
    save_seconds_ = std::min(std::max(number("rdb_last_bgsave_time_sec"), data_bytes_ / kSavedBytesPerSecond),
                             kLongestSave);
  }

  void Run() {
    CheckRights();
    if (CheckBuffer()) {
      CheckBacklog();
      CheckSnapshot();
      CheckShutdown();
      CheckMinReplicas();
    }
    CheckDisk();
  }

 private:
  // The value of a setting; nothing: the server does not have it, or does not tell.
  std::optional<std::string> Setting(Bytes name) {
    auto const reply = connection_.Command({"CONFIG", "GET", name});
    if (!reply.ok()) {
      RequireConnection(reply.error());
      refusal_ = reply.error().message;
      return std::nullopt;
    }
    if (reply.value().size() != 2) return std::nullopt;
    auto const value = reply.value().element(1).String();
    return value ? std::optional(std::string(*value)) : std::nullopt;
  }

  std::optional<int64> NumberSetting(Bytes name) {
    auto const value = Setting(name);
    return value ? ParseNumber(*value) : std::nullopt;
  }

  static void RequireConnection(const Error &error) {
    if (error.code == ErrorCode::kConnectionFailure || error.code == ErrorCode::kTimeout)
      throw pg::Failure(error);
  }

  // ACL DRYRUN, from Redis 7.0 on, tells of a command without running it. PSYNC must not run: it starts a
  // snapshot.
  void CheckRights() {
    std::string missing, unknown;
    struct Right {
      const char *name;
      std::initializer_list<Bytes> command;
      bool may_run;
    };
    const Right rights[] = {
        {"psync", {"PSYNC", "?", "-1"}, false},
        {"replconf", {"REPLCONF", "capa", "psync2"}, true},
    };
    for (const Right &right : rights) {
      std::optional<bool> const is_held = MayRun(right.command, right.may_run);
      if (!is_held)
        unknown += std::string(unknown.empty() ? "" : " ") + right.name;
      else if (!*is_held)
        missing += std::string(missing.empty() ? "+" : " +") + right.name;
    }
    if (!missing.empty())
      add_("rights of a replica", CheckStatus::kFail, "user " + username_ + " lacks " + missing,
           "ACL SETUSER " + username_ + " " + missing +
               ": they give the link all keys, whatever key patterns "
               "the user has.");
    else if (!unknown.empty())
      add_("rights of a replica", CheckStatus::kWarn,
           "could not be checked for " + unknown + ", as ACL DRYRUN is missing or refused",
           "ACL SETUSER " + username_ + " +acl|dryrun, which Redis has from 7.0 on, or +psync +replconf");
    else
      add_("rights of a replica", CheckStatus::kOk, "user " + username_ + " may use PSYNC and REPLCONF", "");
    CheckReadingAgain();
  }

  // Keys are read again in a transaction, in which INFO tells the offset that they are of.
  void CheckReadingAgain() {
    std::string missing;
    if (MayRun({"INFO", "replication"}, true) == false) missing = " +info";
    // EXEC first: without the right to it there is no way out of MULTI.
    if (MayRun({"EXEC"}, true) == false || MayRun({"MULTI"}, true) == false) missing += " +multi +exec";
    auto const ended = connection_.Command({"EXEC"});
    if (!ended.ok()) RequireConnection(ended.error());
    if (!missing.empty())
      add_("rights to read again", CheckStatus::kFail,
           "user " + username_ + " lacks" + missing + ", with which changed keys are read again",
           "ACL SETUSER " + username_ + missing);
  }

  std::optional<bool> MayRun(std::initializer_list<Bytes> command, bool may_run) {
    std::string const username = pg::Utf8FromText(username_, "option \"username\"");
    std::vector<Bytes> dry_run = {"ACL", "DRYRUN", username};
    dry_run.insert(dry_run.end(), command.begin(), command.end());
    connection_.Append(dry_run.data(), dry_run.size());
    auto const reply = connection_.Receive();
    if (!reply.ok()) throw pg::Failure(reply.error());
    if (!reply.value().IsError())  // "OK", or why not
      return reply.value().String().value_or("OK") == "OK";
    if (!may_run) return std::nullopt;
    auto const answer = connection_.Command(command);
    if (answer.ok()) return true;
    RequireConnection(answer.error());
    return answer.error().code != ErrorCode::kPermissionDenied;
  }

  // How much the server may hold for the link while it saves the snapshot; afterwards the link always reads.
  // Tells whether settings can be read at all.
  bool CheckBuffer() {
    auto const limits = Setting("client-output-buffer-limit");
    if (!limits) {
      add_("replication settings", CheckStatus::kWarn, refusal_,
           "ACL SETUSER " + username_ +
               " +config|get, or look at client-output-buffer-limit, "
               "repl-backlog-size and repl-diskless-sync yourself.");
      return false;
    }
    double const needed = std::max(kLeastBuffer, written_per_second_ * save_seconds_);
    std::vector<Bytes> const words = Words(*limits);
    for (size_t i = 0; i + 3 < words.size(); i += 4) {
      if (words[i] != "slave" && words[i] != "replica") continue;
      auto const hard = static_cast<double>(ParseNumber(words[i + 1]).value_or(0));
      auto const soft = static_cast<double>(ParseNumber(words[i + 2]).value_or(0));
      int64 const seconds = ParseNumber(words[i + 3]).value_or(0);
      bool const is_low = (hard > 0 && hard < needed) ||
                          (soft > 0 && soft < needed && static_cast<double>(seconds) < save_seconds_ + 1);
      std::string const detail =
          "client-output-buffer-limit replica is " +
          (hard > 0 ? Mb(hard) + " MB at once" : std::string("unlimited at once")) +
          (soft > 0 ? ", " + Mb(soft) + " MB for " + std::to_string(seconds) + " s" : "") +
          "; a snapshot needs about " + Mb(needed) + " MB";
      add_("replication buffer", is_low ? CheckStatus::kWarn : CheckStatus::kOk, detail,
           is_low ? "Beyond it Redis ends the link: CONFIG SET client-output-buffer-limit \"replica " +
                        Mb(2 * needed) + "mb " + Mb(2 * needed) + "mb 60\""
                  : "");
    }
    return true;
  }

  // How much of the stream the server keeps for a link that comes back.
  void CheckBacklog() {
    auto const size = NumberSetting("repl-backlog-size");
    if (!size) return;
    double const needed = std::max(kLeastBacklog, written_per_second_ * kInterruptionSeconds);
    bool const is_low = static_cast<double>(*size) < needed;
    auto const ttl = NumberSetting("repl-backlog-ttl");
    std::string detail = "repl-backlog-size is " + std::to_string(*size / 1024) + " kB";
    if (written_per_second_ > 0)
      detail += ", which lasts about " +
                std::to_string(static_cast<int64>(static_cast<double>(*size) / written_per_second_)) +
                " s at what the server receives now";
    if (ttl && *ttl > 0) detail += "; without any replica it is kept for " + std::to_string(*ttl) + " s";
    add_("replication backlog", is_low ? CheckStatus::kWarn : CheckStatus::kOk, detail,
         is_low ? "A link that is cut for longer needs a new snapshot: CONFIG SET repl-backlog-size " +
                      Mb(needed) + "mb"
                : "");
  }

  void CheckSnapshot() {
    auto const is_diskless = Setting("repl-diskless-sync");
    if (!is_diskless) return;
    auto const delay = NumberSetting("repl-diskless-sync-delay").value_or(0);
    if (info_.Get("rdb_last_bgsave_status") == "err")
      add_("snapshot", CheckStatus::kFail, "the server's last BGSAVE failed, and a snapshot is one, too",
           "Look into the log of Redis, and try BGSAVE again.");
    else if (*is_diskless != "yes")
      add_("snapshot", CheckStatus::kOk, "the server saves a snapshot on its own disk first", "");
    else if (delay > kLongestDelaySeconds)
      add_("snapshot", CheckStatus::kWarn,
           "the server waits " + std::to_string(delay) + " s for other replicas before each snapshot",
           "CONFIG SET repl-diskless-sync-delay 5");
    else
      add_("snapshot", CheckStatus::kOk,
           "the server sends a snapshot without its disk, after " + std::to_string(delay) + " s", "");
  }

  void CheckShutdown() {
    auto const timeout = NumberSetting("shutdown-timeout");  // from Redis 7.0 on
    if (!timeout) return;
    bool const is_long = *timeout > kLongestShutdownSeconds;
    add_("shutdown", is_long ? CheckStatus::kWarn : CheckStatus::kOk,
         *timeout == 0 ? "SHUTDOWN of Redis does not wait for replicas"
                       : "SHUTDOWN of a master waits up to " + std::to_string(*timeout) +
                             " s until the link has acknowledged what was written, as for any replica",
         is_long ? "CONFIG SET shutdown-timeout 10" : "");
  }

  void CheckMinReplicas() {
    auto const least = NumberSetting("min-replicas-to-write");
    if (!least) return;
    add_("counted as a replica", *least > 0 ? CheckStatus::kWarn : CheckStatus::kOk,
         *least > 0 ? "min-replicas-to-write is " + std::to_string(*least) + ", and the link counts as one"
                    : "WAIT and FAILOVER count the link as a replica",
         *least > 0 ? "So that as many real ones are needed as before: CONFIG SET min-replicas-to-write " +
                          std::to_string(*least + 1)
                    : "");
  }

  // The snapshot, and what is written while it is loaded.
  void CheckDisk() {
    double const load_seconds = data_bytes_ / kLoadedBytesPerSecond;
    double const changes = written_per_second_ * (load_seconds + save_seconds_);
    double const most_snapshot = pg::settings::max_snapshot_size_mb * kMb;
    double const most_spool = pg::settings::max_spool_size_mb * kMb;
    std::string const sizes = "a snapshot takes at most about " + Mb(data_bytes_) +
                              " MB, and what is written while it is loaded " + Mb(changes) + " MB";
    if (most_snapshot >= 0 && data_bytes_ > most_snapshot)
      add_("snapshot size", CheckStatus::kWarn,
           "pg_redis_migrate.max_snapshot_size is " + std::to_string(pg::settings::max_snapshot_size_mb) +
               " MB, and " + sizes,
           "ALTER SYSTEM SET pg_redis_migrate.max_snapshot_size = '" + Mb(data_bytes_) + "MB'");
    if (changes > most_spool)
      add_("spool size", CheckStatus::kWarn,
           "pg_redis_migrate.max_spool_size is " + std::to_string(pg::settings::max_spool_size_mb) +
               " MB, and " + sizes + ": the link would leave the server meanwhile",
           "ALTER SYSTEM SET pg_redis_migrate.max_spool_size = '" + Mb(2 * changes) + "MB'");
    std::string directory = FilesDirectory();
    directory.resize(directory.rfind('/'));  // that of the database: ours may not exist yet
    struct statvfs file_system;
    if (statvfs(directory.c_str(), &file_system) != 0) return;
    double const free = static_cast<double>(file_system.f_bavail) * static_cast<double>(file_system.f_frsize);
    double const needed = data_bytes_ + std::min(changes, most_spool);
    bool const has_room = needed < free;
    add_("disk", has_room ? CheckStatus::kOk : CheckStatus::kFail,
         sizes + "; " + Mb(free) + " MB are free in the database's directory",
         has_room ? ""
                  : "Free " + Mb(needed - free) +
                        " MB there, or move the database: ALTER DATABASE ... SET "
                        "TABLESPACE.");
  }

  redis::Connection &connection_;
  const redis::ServerInfo &info_;
  const std::string &username_;
  const AddCheck &add_;
  double written_per_second_;
  double data_bytes_;
  double save_seconds_;
  std::string refusal_ = "CONFIG GET told nothing";
};

}  // namespace

void CheckReplication(redis::Connection &connection, const redis::ServerInfo &info,
                      const std::string &username, const AddCheck &add) {
  ReplicationCheck(connection, info, username, add).Run();
}

}  // namespace prm
