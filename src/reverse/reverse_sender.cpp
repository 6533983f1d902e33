#include "reverse/reverse_sender.h"

#include <charconv>

#include "core/position_key.h"
#include "pg/spi.h"
#include "reverse/cluster_sender.h"
#include "sink/command_abilities.h"

namespace prm {

namespace {

// To a server that is no cluster.
class ServerSender : public ReverseSender {
 public:
  ServerSender(const std::string &migration, const std::string &server, const std::string &instance)
      : ReverseSender(migration, instance),
        connection_(server, GetUserId()),
        position_key_(PositionKeyOf(migration)) {
    pg::Spi::Commit();
    abilities_ = pg::ValueOrThrow(sink::AskAbilities(*connection_));
    RequireTransactions(*connection_);
  }

  bool is_cluster() const override { return false; }

  std::map<size_t, Position> FetchPositions(const redis::Slots &) override {
    pg::ValueOrThrow(connection_->Command({"SELECT", "0"}));
    pg::ValueOrThrow(connection_->Command({"WATCH", position_key_}));
    redis::Reply const reply = pg::ValueOrThrow(connection_->Command({"GET", position_key_}));
    auto const text = TextOf(*connection_, reply);
    if (!text) return {};
    return {{0, PositionOf(*text)}};
  }

  redis::Slots Send(int64 batch) override {
    std::vector<std::string> const names = Append(*connection_, position_key_, MarkOf(batch), commands_[0]);
    Clear();  // values may be large
    // The next batch is watched before its rows are read.
    connection_->Append({"SELECT", "0"});
    connection_->Append({"WATCH", position_key_});
    std::optional<pg::Failure> refused = Receive(*connection_, position_key_, names);
    for (int i = 0; i < 2; ++i) {
      redis::Reply const reply = pg::ValueOrThrow(connection_->Receive());
      if (reply.IsError() && !refused) refused.emplace(connection_->ToError(reply));
    }
    if (refused) throw pg::Failure(*refused);
    return {};
  }

  void End(int64 batch, const redis::Slots &) override {
    FetchPositions({});
    Send(batch);
  }

  void RemovePositions(const redis::Slots &) override {
    pg::ValueOrThrow(connection_->Command({"SELECT", "0"}));
    pg::ValueOrThrow(connection_->Command({"UNLINK", position_key_}));
  }

  size_t SlotOf(const std::string &) const override { return 0; }

 private:
  ServerConnection connection_;
  const std::string position_key_;
};

}  // namespace

std::unique_ptr<ReverseSender> ReverseSender::Open(const std::string &migration, const std::string &server,
                                                   const std::string &instance) {
  redis::Deployment const deployment = ServerOptions(server, GetUserId());
  if (deployment.seeds.empty()) return std::make_unique<ServerSender>(migration, server, instance);
  pg::Spi::Commit();
  return std::make_unique<ClusterSender>(migration, deployment, instance);
}

// If transactions were forbidden, the commands of a batch would be executed one by one, by the watch or not.
void ReverseSender::RequireTransactions(redis::Connection &connection) {
  pg::ValueOrThrow(connection.Command({"MULTI"}));
  pg::ValueOrThrow(connection.Command({"EXEC"}));
}

std::optional<Bytes> ReverseSender::TextOf(const redis::Connection &connection, const redis::Reply &reply) {
  auto const text = reply.String();
  if (!text && !reply.IsNil()) throw pg::Failure(connection.UnknownReply("GET"));
  return text;
}

ReverseSender::Position ReverseSender::PositionOf(Bytes text) const {
  Position position;
  position.is_of_others = text.substr(0, mark_.size()) != mark_;
  if (position.is_of_others) return position;
  int64_t number = 0;
  const char *const end = text.data() + text.size();
  auto const [at, failed] = std::from_chars(text.data() + mark_.size(), end, number);
  if (failed == std::errc() && at == end) position.batch = number;
  return position;
}

Status ReverseSender::Add(int db, const std::string &key, const sink::WholeValue &value) {
  class Collector : public sink::CommandSink {
   public:
    explicit Collector(std::vector<Command> &commands) : commands_(commands) {}
    void OnCommand(const std::vector<Bytes> &arguments) override {
      commands_.emplace_back(arguments.begin(), arguments.end());
    }

   private:
    std::vector<Command> &commands_;
  };
  size_t const slot = SlotOf(key);
  std::vector<Command> &commands = commands_[slot];
  size_t const before = commands.size();
  if (db != db_) commands.push_back({"SELECT", std::to_string(db)});
  Collector collector(commands);
  Status status = sink::WriteWholeValue(key, value, abilities_, interrupts_, collector);
  if (status.ok())
    db_ = db;
  else
    commands.resize(before);
  if (commands.empty()) commands_.erase(slot);
  return status;
}

redis::Slots ReverseSender::slots() const {
  redis::Slots slots;
  for (const auto &[slot, commands] : commands_) slots.set(slot);
  return slots;
}

std::vector<std::string> ReverseSender::Append(redis::Connection &connection, const std::string &position_key,
                                               const std::string &mark,
                                               const std::vector<Command> &commands) {
  std::vector<std::string> names;
  auto append = [&](const Command &command) {
    std::vector<Bytes> const arguments(command.begin(), command.end());
    connection.Append(arguments.data(), arguments.size(), redis::kLargeReply);
    names.push_back(command[0]);
  };
  append({"MULTI"});
  append({"SET", position_key, mark});
  for (const Command &command : commands) append(command);
  append({"EXEC"});
  return names;
}

std::optional<pg::Failure> ReverseSender::Receive(redis::Connection &connection,
                                                  const std::string &position_key,
                                                  const std::vector<std::string> &names) {
  std::optional<pg::Failure> refused;
  size_t const exec = names.size() - 1;
  for (size_t i = 0; i < names.size(); ++i) {
    redis::Reply const reply = pg::ValueOrThrow(connection.Receive());
    if (refused) continue;
    if (reply.IsError() && reply.ErrorText().substr(0, 9) == "READONLY ") {
      refused.emplace(ERRCODE_CANNOT_CONNECT_NOW,
                      "Redis at " + connection.address() + " is a replica, and takes no writes", "",
                      "After a fail-over, let the server name the master, or the Sentinels that know it.");
    } else if (reply.IsError()) {
      refused.emplace(connection.ToError(reply));
    } else if (i == exec && reply.IsNil()) {
      refused.emplace(ERRCODE_T_R_SERIALIZATION_FAILURE,
                      "another connection has written " + position_key + " since the last batch",
                      "It is of a reverse feed that has ended, or of another server's.");
    } else if (i == exec) {
      if (reply.size() != exec - 1) refused.emplace(connection.UnknownReply("EXEC"));
      for (size_t j = 0; j < reply.size() && !refused; ++j)
        if (reply.element(j).IsError())
          refused.emplace(connection.ToError(reply.element(j).ErrorText(), names[j + 1]));
    }
  }
  return refused;
}

}  // namespace prm
