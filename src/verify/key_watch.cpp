#include "verify/key_watch.h"

#include "pg/spi.h"
#include "redis/info.h"

namespace prm {

namespace {

constexpr int kMostFailures = 3;

}  // namespace

bool KeyWatch::Begin(const std::vector<KeyId> &keys, const std::string &run_id) {
  if (is_watching_) HeldStill();  // UNWATCH would take a right more
  if (failures_ >= kMostFailures) return false;
  is_watching_ = Open(run_id) && Watch(keys);
  if (is_watching_) {
    failures_ = 0;
  } else {
    connection_.reset();
    ++failures_;
  }
  return is_watching_;
}

bool KeyWatch::HeldStill() {
  if (!std::exchange(is_watching_, false)) return false;
  redis::Connection &connection = **connection_;
  for (const char *command : {"MULTI", "EXEC"}) connection.Append({command});
  bool is_executed = false;  // EXEC answers nil if it executes nothing
  for (int answers = 0; answers < 2; ++answers) {
    auto const answer = connection.Receive();
    if (!answer.ok()) {
      connection_.reset();
      return false;
    }
    is_executed = answer.value().IsArray();
  }
  return is_executed;
}

// Where connections go to one server of several, this one must be the one that keys are read from. A reading
// can do without: what keeps it from being opened is no error.
bool KeyWatch::Open(const std::string &run_id) {
  if (connection_ != nullptr && run_id_ == run_id) return true;
  connection_.reset();
  try {
    connection_ = std::make_unique<ServerConnection>(server_, GetUserId());
  } catch (const pg::Failure &) {
    pg::Spi::Commit();
    return false;
  }
  pg::Spi::Commit();
  auto const info = redis::FetchInfo(**connection_);
  if (!info.ok() || info.value().run_id() != run_id) return false;
  run_id_ = run_id;
  db_.reset();
  return true;
}

bool KeyWatch::Watch(const std::vector<KeyId> &keys) {
  redis::Connection &connection = **connection_;
  size_t asked = 0;
  for (const auto &[db, key] : keys) {
    if (db != db_) {
      connection.Append({"SELECT", std::to_string(db)});
      ++asked;
      db_ = db;
    }
    connection.Append({"WATCH", key});
    ++asked;
  }
  bool are_watched = true;
  for (; asked > 0; --asked) {
    auto const answer = connection.Receive();
    if (!answer.ok()) return false;
    are_watched = are_watched && answer.value().IsStatus();
  }
  return are_watched;
}

}  // namespace prm
