#include "reverse/reverse_sender.h"

#include <charconv>

#include "core/position_key.h"
#include "sink/command_abilities.h"

namespace prm {

ReverseSender::ReverseSender(const std::string &migration, const std::string &server, std::string instance)
    : connection_(server, GetUserId()),
      position_key_(PositionKeyOf(migration)),
      mark_(std::move(instance) + ":") {
  if (!connection_.topology().shards.empty())
    throw pg::Failure(ERRCODE_FEATURE_NOT_SUPPORTED, "the reverse feed does not write to a Redis Cluster");
  abilities_ = pg::ValueOrThrow(sink::AskAbilities(*connection_));
  pg::ValueOrThrow(connection_->Command({"SELECT", "0"}));
  // If transactions were forbidden, the commands of a batch would be executed one by one, by the watch or
  // not.
  pg::ValueOrThrow(connection_->Command({"MULTI"}));
  pg::ValueOrThrow(connection_->Command({"EXEC"}));
  pg::ValueOrThrow(connection_->Command({"WATCH", position_key_}));
  redis::Reply const position = pg::ValueOrThrow(connection_->Command({"GET", position_key_}));
  if (position.IsNil()) return;
  auto const text = position.String();
  if (!text) throw pg::Failure(connection_->UnknownReply("GET"));
  int64_t number = 0;
  is_of_others_ = text->substr(0, mark_.size()) != mark_;
  if (is_of_others_) return;
  const char *const end = text->data() + text->size();
  auto const [at, failed] = std::from_chars(text->data() + mark_.size(), end, number);
  if (failed == std::errc() && at == end) position_ = number;
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
  size_t const before = commands_.size();
  if (db != db_) commands_.push_back({"SELECT", std::to_string(db)});
  Collector collector(commands_);
  Status status = sink::WriteWholeValue(key, value, abilities_, connection_->waiter(), collector);
  if (status.ok())
    db_ = db;
  else
    commands_.resize(before);
  return status;
}

void ReverseSender::Send(int64 batch) {
  std::vector<std::string> names;  // of the commands
  auto append = [&](const Command &command) {
    std::vector<Bytes> const arguments(command.begin(), command.end());
    connection_->Append(arguments.data(), arguments.size(), redis::kLargeReply);
    names.push_back(command[0]);
  };
  append({"MULTI"});
  append({"SET", position_key_, mark_ + std::to_string(batch)});
  for (Command &command : commands_) {
    append(command);
    Command().swap(command);  // values may be large
  }
  Clear();
  size_t const exec = names.size();
  append({"EXEC"});
  // The next batch is watched before its rows are read.
  append({"SELECT", "0"});
  append({"WATCH", position_key_});
  std::optional<pg::Failure> refused;
  for (size_t i = 0; i < names.size(); ++i) {
    redis::Reply const reply = pg::ValueOrThrow(connection_->Receive());
    if (refused) continue;
    if (reply.IsError() && reply.ErrorText().substr(0, 9) == "READONLY ") {
      refused.emplace(ERRCODE_CANNOT_CONNECT_NOW,
                      "Redis at " + connection_->address() + " is a replica, and takes no writes", "",
                      "After a fail-over, let the server name the master, or the Sentinels that know it.");
    } else if (reply.IsError()) {
      refused.emplace(connection_->ToError(reply));
    } else if (i == exec && reply.IsNil()) {
      refused.emplace(ERRCODE_T_R_SERIALIZATION_FAILURE,
                      "another connection has written " + position_key_ + " since the last batch",
                      "It is of a reverse feed that has ended, or of another server's.");
    } else if (i == exec) {
      if (reply.size() != exec - 1) refused.emplace(connection_->UnknownReply("EXEC"));
      for (size_t j = 0; j < reply.size() && !refused; ++j)
        if (reply.element(j).IsError())
          refused.emplace(connection_->ToError(reply.element(j).ErrorText(), names[j + 1]));
    }
  }
  if (refused) throw pg::Failure(*refused);
}

}  // namespace prm
