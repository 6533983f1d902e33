#include "verify/key_watch.h"

#include "connect/outage.h"
#include "pg/spi.h"
#include "redis/info.h"

namespace prm {

bool KeyWatch::Begin(const std::vector<KeyId> &keys, const std::string &run_id) {
  // UNWATCH would take a right more.
  if (is_watching_) HeldStill();
  if (is_refused_ || !Open(run_id)) return false;
  Status const watching = Watch(keys);
  is_watching_ = watching.ok();
  if (is_watching_) return true;
  connection_.reset();
  is_refused_ = watching.error().code == ErrorCode::kPermissionDenied ||
                watching.error().code == ErrorCode::kServerError;
  if (!is_refused_) pg::ThrowIfError(watching);
  return false;
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
      if (!MayComeBack(answer.error().code)) pg::ThrowIfError(answer);
      return false;
    }
    is_executed = answer.value().IsArray();
  }
  return is_executed;
}

// Where connections go to one server of several, this one must be the one that keys are read from.
bool KeyWatch::Open(const std::string &run_id) {
  if (connection_ != nullptr) return true;
  auto connection = std::make_unique<ServerConnection>(server_, GetUserId());
  pg::Spi::Commit();
  auto const info = redis::FetchInfo(**connection);
  is_refused_ = !info.ok() && !MayComeBack(info.error().code);
  if (is_refused_) return false;
  pg::ThrowIfError(info);
  is_refused_ = info.value().run_id() != run_id;
  if (is_refused_) return false;
  connection_ = std::move(connection);
  db_.reset();
  return true;
}

Status KeyWatch::Watch(const std::vector<KeyId> &keys) {
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
  std::optional<Error> refused;
  for (; asked > 0; --asked) {
    auto const answer = connection.Receive();
    if (!answer.ok()) return answer.error();
    if (!refused && answer.value().IsError()) refused = connection.ToError(answer.value());
    if (!refused && !answer.value().IsStatus()) refused = connection.UnknownReply("WATCH");
  }
  return refused ? Status(*refused) : Status();
}

}  // namespace prm
