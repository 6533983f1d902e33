#include "reverse/reverse_sender.h"

#include <charconv>

#include "core/position_key.h"

namespace prm {

ReverseSender::ReverseSender(const std::string &migration, const std::string &server)
    : connection_(server, GetUserId()), position_key_(PositionKeyOf(migration)) {
  if (!connection_.topology().shards.empty())
    throw pg::Failure(ERRCODE_FEATURE_NOT_SUPPORTED, "the reverse feed does not write to a Redis Cluster");
  pg::ValueOrThrow(connection_->Command({"SELECT", "0"}));
  pg::ValueOrThrow(connection_->Command({"WATCH", position_key_}));
  redis::Reply const position = pg::ValueOrThrow(connection_->Command({"GET", position_key_}));
  if (auto const text = position.String()) {
    int64_t number = 0;
    auto const [at, failed] = std::from_chars(text->data(), text->data() + text->size(), number);
    if (failed == std::errc() && at == text->data() + text->size()) position_ = number;
  }
}

void ReverseSender::Add(int db, const std::string &key, const redis::WholeValue &value) {
  if (db != db_) {
    commands_.push_back({"SELECT", std::to_string(db)});
    db_ = db;
  }
  redis::AppendWholeValue(key, value, commands_);
}

void ReverseSender::Send(int64 batch) {
  std::vector<redis::CommandArguments> commands = {{"MULTI"}, {"SET", position_key_, std::to_string(batch)}};
  std::move(commands_.begin(), commands_.end(), std::back_inserter(commands));
  size_t const exec = commands.size();
  // The next batch is watched before its rows are read.
  commands.insert(commands.end(), {{"EXEC"}, {"SELECT", "0"}, {"WATCH", position_key_}});
  Clear();
  for (const redis::CommandArguments &command : commands) {
    std::vector<Bytes> const arguments(command.begin(), command.end());
    connection_->Append(arguments.data(), arguments.size(), redis::kLargeReply);
  }
  std::optional<pg::Failure> refused;
  for (size_t i = 0; i < commands.size(); ++i) {
    redis::Reply const reply = pg::ValueOrThrow(connection_->Receive());
    if (refused) continue;
    if (reply.IsError()) {
      refused.emplace(connection_->ToError(reply));
    } else if (i == exec && reply.IsNil()) {
      refused.emplace(ERRCODE_T_R_SERIALIZATION_FAILURE,
                      "another connection has written " + position_key_ + " since the last batch",
                      "It is of a reverse feed that has ended, or of another server's.");
    } else if (i == exec) {
      if (reply.size() != exec - 1) refused.emplace(connection_->UnknownReply("EXEC"));
      for (size_t j = 0; j < reply.size() && !refused; ++j)
        if (reply.element(j).IsError())
          refused.emplace(connection_->ToError(reply.element(j).ErrorText(), commands[j + 1][0]));
    }
  }
  if (refused) throw pg::Failure(*refused);
}

}  // namespace prm
