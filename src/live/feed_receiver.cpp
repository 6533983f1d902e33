#include "live/feed_receiver.h"

#include "connect/outage.h"
#include "connect/server.h"
#include "connect/spool_files.h"
#include "live/link_report.h"
#include "mapping/catalog.h"
#include "pg/arguments.h"
#include "pg/background.h"
#include "pg/settings.h"
#include "pg/spi.h"
#include "pg/time.h"
#include "redis/change_feed.h"
#include "redis/command_table.h"
#include "stream/stream_spool.h"

namespace prm {
namespace {

using pg::Failure;
using pg::Spi;
using redis::ChangeFeed;

constexpr int64 kCheckEveryMs = 500;
constexpr int64 kGatherMs = 20;  // names of keys that change again and again are written once in that time
constexpr size_t kMostGathered = 5000;
constexpr size_t kNamesPerCommand = 100;
constexpr long kFirstPauseMs = 200;
constexpr long kLongestPauseMs = 5000;

void AppendWord(std::string &bytes, Bytes word) {
  bytes.append("$").append(std::to_string(word.size())).append("\r\n").append(word).append("\r\n");
}

void AppendCommand(std::string &bytes, const std::vector<Bytes> &words) {
  bytes.append("*").append(std::to_string(words.size())).append("\r\n");
  for (Bytes const word : words) AppendWord(bytes, word);
}

class FeedReceiver {
 public:
  FeedReceiver(int64 run_id, const std::string &migration)
      : record_(run_id), files_(run_id), report_(record_, migration), migration_(migration) {
    Migration const loaded = LoadMigration(migration);
    server_ = loaded.server;
    databases_ = loaded.databases;
    for (const Mapping &mapping : loaded.mappings)
      if (mapping.expand == "groups" || mapping.expand == "pending")
        groups_doubt_ =
            "mapping \"" + mapping.name +
            "\" stores consumer groups, of which no feed tells changes by XACK, XCLAIM and XREADGROUP";
    Spi::Commit();
    writer_ = pg::ValueOrThrow(stream::StreamSpoolWriter::Open(files_));
  }

  void Run() {
    // Somebody has kept the feed before, and nobody since.
    if (writer_->end()) return NeedScan("the feed of changes was interrupted");
    for (long pause_ms = kFirstPauseMs; report_.IsWanted();
         pause_ms = std::min(pause_ms * 2, kLongestPauseMs)) {
      status_.state = "connecting";
      Note();
      try {
        Open();
        break;
      } catch (const Failure &failure) {
        Close();
        status_.sqlstate = failure.sqlstate();
        status_.message = Tell(failure);
        ++status_.reconnects;
        Note();
        if (!MayComeBack(failure.sqlstate()) && !IsRefusal(failure.sqlstate()))
          throw Failure(failure.sqlstate(), status_.message);
      }
      pg::Sleep(pause_ms);
    }
    if (feed_ == nullptr) return;
    try {
      Receive();
    } catch (const Failure &failure) {
      if (feed_->is_flushed()) LiveRecord::NoteFlush(migration_);  // NeedScan commits
      NeedScan(failure.message());
    }
  }

 private:
  enum class Question { kNone, kFirst, kSecond };

  // Whoever reads the state of the link has nothing but its message.
  static std::string Tell(const Failure &failure) {
    std::string text = failure.message();
    if (!failure.detail().empty()) text += ": " + failure.detail();
    if (!failure.hint().empty()) text += " " + failure.hint();
    return text;
  }

  void Note() { report_.Note(status_); }

  void Close() {
    feed_.reset();
    subscriber_.reset();
    commands_.reset();
  }

  void NeedScan(const std::string &why) {
    Close();
    status_.state = "full sync needed";
    status_.sqlstate.reset();
    status_.message = why;
    Note();
  }

  void Open() {
    commands_ = std::make_unique<ServerConnection>(server_, GetUserId());
    const redis::Deployment &deployment = commands_->deployment();
    if (!deployment.seeds.empty() || !deployment.sentinel_master.empty())
      throw Failure(
          ERRCODE_FEATURE_NOT_SUPPORTED,
          std::string("a live run with source 'scan' follows neither clusters nor the masters of ") +
              "Sentinels",
          "Server \"" + server_ + "\" is one of these.", "Use source 'replication'.");
    subscriber_ = std::make_unique<ServerConnection>(server_, GetUserId());
    Spi::Commit();
    feed_ = pg::ValueOrThrow(ChangeFeed::Open(**subscriber_, **commands_, databases_.has_value()));
    pg::ThrowIfError(writer_->Begin({feed_->run_id(), 0}, true));
  }

  void Receive() {
    status_.state = "streaming";
    status_.sqlstate.reset();
    status_.message.clear();
    status_.replication_id = feed_->run_id();
    status_.feed = feed_->kind() == ChangeFeed::Kind::kTracking ? "tracking" : "notifications";
    status_.doubt = feed_->doubt();
    if (!groups_doubt_.empty()) status_.doubt += (status_.doubt.empty() ? "" : "; ") + groups_doubt_;
    Question question = Question::kNone;
    uint64 answered = 0;
    uint64 refused = 0;
    int64 asked_at_ms = 0;
    for (int64 checked_ms = pg::MonotonicMs() - kCheckEveryMs;;) {
      int64 now_ms = pg::MonotonicMs();
      if (question == Question::kNone && now_ms - checked_ms >= kCheckEveryMs) {
        checked_ms = now_ms;
        // Every change before this moment is written when both questions have been answered.
        asked_at_ms = pg::UnixMs(GetCurrentTimestamp());
        if (pg::ValueOrThrow(feed_->CountKeys())) {
          question = Question::kFirst;
          feed_->Ping();
        } else if (!report_.IsWanted()) {
          return;
        }
      }
      changes_.clear();
      pg::ThrowIfError(feed_->Read(gathered_.empty() ? kCheckEveryMs / 2 : kGatherMs, changes_));
      now_ms = pg::MonotonicMs();
      Gather(now_ms);
      bool const is_answered = feed_->pongs() > answered;
      if (feed_->refusals() > refused) {
        refused = feed_->refusals();
        question = Question::kNone;
        if (!report_.IsWanted()) return;
      }
      if (is_answered || gathered_.size() >= kMostGathered || now_ms - gathered_ms_ >= kGatherMs) Write();
      if (!is_answered) continue;
      answered = feed_->pongs();
      if (question == Question::kFirst) {
        question = Question::kSecond;
        feed_->Ping();
        continue;
      }
      question = Question::kNone;
      if (pg::ValueOrThrow(feed_->Check())) {
        status_.received_at_ms = asked_at_ms;
        Report();
      }
      if (!report_.IsWanted()) return;
    }
  }

  // Adds what was read to what is to be written.
  void Gather(int64 now_ms) {
    if (gathered_.empty()) gathered_ms_ = now_ms;
    for (ChangeFeed::Change &change : changes_) {
      if (!change.db) {
        for (int db : *databases_) gathered_.emplace(db, change.key);
      } else if (Takes(databases_, *change.db)) {
        gathered_.emplace(*change.db, std::move(change.key));
      }
    }
  }

  // Writes names as commands of a replication stream, in the order of databases.
  void Write() {
    if (gathered_.empty()) return;
    std::string bytes;
    std::vector<Bytes> words;
    int selected = -1;
    auto end_command = [&] {
      if (words.size() > 1) AppendCommand(bytes, words);
      words.assign(1, redis::kChangedCommand);
    };
    for (const auto &[db, key] : gathered_) {
      if (db != selected || words.size() > kNamesPerCommand) end_command();
      if (db != selected) AppendCommand(bytes, {"SELECT", std::to_string(db)});
      selected = db;
      words.push_back(key);
    }
    end_command();
    int64 const now_ms = pg::NowMs();
    pg::ThrowIfError(writer_->Append(bytes, {now_ms, now_ms}));
    gathered_.clear();
  }

  void Report() {
    status_.received_offset = writer_->end()->offset;
    status_.spool_bytes = pg::ValueOrThrow(writer_->CountBytes());
    Note();
    if (*status_.spool_bytes > static_cast<uint64>(pg::settings::max_spool_size_mb) * 1024 * 1024)
      throw Failure(ERRCODE_PROGRAM_LIMIT_EXCEEDED,
                    "the changes that wait take more than pg_redis_migrate.max_spool_size");
  }

  LiveRecord record_;
  SpoolFiles files_;
  LinkReport report_;
  std::string migration_;
  std::string server_;
  DatabaseNumbers databases_;
  std::string groups_doubt_;  // empty: no mapping needs what feeds do not tell
  std::unique_ptr<stream::StreamSpoolWriter> writer_;
  std::unique_ptr<ServerConnection> subscriber_, commands_;
  std::unique_ptr<ChangeFeed> feed_;
  LinkStatus status_;
  std::vector<ChangeFeed::Change> changes_;         // that were read last
  std::set<std::pair<int, std::string>> gathered_;  // database and key: not written yet
  int64 gathered_ms_ = 0;                           // since when
};

}  // namespace

void ReceiveFeed(int64 run_id, const std::string &migration) { FeedReceiver(run_id, migration).Run(); }

}  // namespace prm
