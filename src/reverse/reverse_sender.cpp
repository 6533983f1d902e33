#include "reverse/reverse_sender.h"

#include "core/position_key.h"

namespace prm {

ReverseSender::ReverseSender(const std::string &migration, const std::string &server)
    : connection_(server, GetUserId()), position_key_(PositionKeyOf(migration)) {
  if (!connection_.topology().shards.empty())
    throw pg::Failure(ERRCODE_FEATURE_NOT_SUPPORTED, "the reverse feed does not write to a Redis Cluster");
}

void ReverseSender::Add(int db, const std::string &key, const redis::WholeValue &value) {
  if (db != db_) {
    commands_.push_back({"SELECT", std::to_string(db)});
    db_ = db;
  }
  redis::AppendWholeValue(key, value, commands_);
  bytes_ += key.size();
  for (const std::string &element : value.elements) bytes_ += element.size();
}

void ReverseSender::Send(int64 batch) {
  std::vector<redis::CommandArguments> commands = {
      {"SELECT", "0"}, {"MULTI"}, {"SET", position_key_, std::to_string(batch)}};
  std::move(commands_.begin(), commands_.end(), std::back_inserter(commands));
  commands.push_back({"EXEC"});
  commands_.clear();
  bytes_ = 0;
  db_ = 0;
  for (const redis::CommandArguments &command : commands) {
    std::vector<Bytes> const arguments(command.begin(), command.end());
    connection_->Append(arguments.data(), arguments.size(), redis::kLargeReply);
  }
  std::optional<pg::Failure> refused;
  for (size_t i = 0; i < commands.size(); ++i) {
    redis::Reply const reply = pg::ValueOrThrow(connection_->Receive());
    if (refused) continue;
    if (reply.IsError()) refused.emplace(connection_->ToError(reply));
    if (i + 1 < commands.size() || refused) continue;
    if (!reply.IsArray() || reply.size() != commands.size() - 3)
      refused.emplace(connection_->UnknownReply("EXEC"));
    for (size_t j = 0; j < reply.size() && !refused; ++j)
      if (reply.element(j).IsError())
        refused.emplace(connection_->ToError(reply.element(j).ErrorText(), commands[j + 2][0]));
  }
  if (refused) throw pg::Failure(*refused);
}

}  // namespace prm
