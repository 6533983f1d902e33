#include "sink/pipeline.h"

namespace prm::sink {

Status Pipeline::Send(const std::vector<Bytes>& arguments, size_t tag) {
  size_t bytes = 0;
  for (const Bytes argument : arguments) bytes += argument.size();
  // Half of it, so that the server has work while the caller makes the next commands.
  if (!sent_.empty() && (bytes_ + bytes > most_bytes_ || sent_.size() >= kMostCommands))
    PRM_RETURN_IF_ERROR(ReceiveUntil(kMostCommands / 2, bytes < most_bytes_ / 2 ? most_bytes_ / 2 : 0));
  connection_.Append(arguments.data(), arguments.size());
  sent_.push_back({tag, bytes});
  bytes_ += bytes;
  return {};
}

Status Pipeline::ReceiveUntil(size_t commands, size_t bytes) {
  while (sent_.size() > commands || bytes_ > bytes) {
    const Result<redis::Reply> reply = connection_.Receive();
    if (!reply.ok()) return reply.error();
    const Sent sent = sent_.front();
    sent_.pop_front();
    bytes_ -= sent.bytes;
    on_reply_(sent.tag, reply.value());
  }
  return {};
}

}  // namespace prm::sink
