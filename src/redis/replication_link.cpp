#include "redis/replication_link.h"

#include <algorithm>
#include <charconv>
#include <limits>

namespace prm::redis {

namespace {

constexpr size_t kMarkBytes = 40;  // of an end mark
constexpr size_t kLongestLine = 512;

// How a master asks how far its replicas are: redis 7.0 src/replication.c, replicationFeedSlaves.
constexpr Bytes kQuestion = "*3\r\n$8\r\nREPLCONF\r\n$6\r\nGETACK\r\n$1\r\n*\r\n";

std::optional<uint64_t> ParseNumber(Bytes digits) {
  int64_t number = 0;
  const char* const end = digits.data() + digits.size();
  const auto [at, failed] = std::from_chars(digits.data(), end, number);
  if (failed != std::errc() || at != end || number < 0) return std::nullopt;
  return static_cast<uint64_t>(number);
}

// A command of RESP, redis.io/docs/reference/protocol-spec.
std::string CommandBytes(std::initializer_list<Bytes> arguments) {
  std::string bytes = "*" + std::to_string(arguments.size()) + "\r\n";
  for (const Bytes argument : arguments) {
    bytes.append("$").append(std::to_string(argument.size())).append("\r\n").append(argument).append("\r\n");
  }
  return bytes;
}

// The words after the first if that is `first`.
std::optional<Bytes> After(Bytes first, Bytes line) {
  if (line.substr(0, first.size()) != first) return std::nullopt;
  if (line.size() == first.size()) return Bytes();
  return line[first.size()] == ' ' ? std::optional(line.substr(first.size() + 1)) : std::nullopt;
}

}  // namespace

Result<std::unique_ptr<ReplicationLink>> ReplicationLink::OpenForSnapshot(Connection& connection) {
  std::unique_ptr<ReplicationLink> link(new ReplicationLink(connection));
  PRM_RETURN_IF_ERROR(link->Introduce(Wants::kSnapshot));
  PRM_RETURN_IF_ERROR(link->AskFor(std::nullopt));
  return link;
}

Result<std::unique_ptr<ReplicationLink>> ReplicationLink::Open(Connection& connection,
                                                               const std::optional<ReplicationPoint>& from) {
  std::unique_ptr<ReplicationLink> link(new ReplicationLink(connection));
  PRM_RETURN_IF_ERROR(link->Introduce(from ? Wants::kRest : Wants::kAll));
  PRM_RETURN_IF_ERROR(link->AskFor(from));
  return link;
}

Status ReplicationLink::Introduce(Wants wants) {
  struct Step {
    std::initializer_list<Bytes> command;
    bool is_needed;
    bool is_wanted = true;
  };
  const Step steps[] = {
      {{"REPLCONF", "listening-port", "0"}, true},
      {{"REPLCONF", "capa", "eof", "capa", "psync2"}, true},
      // Valkey from 9.1 on writes an older format to replicas that do not name their version, and fails if a
      // field of a hash expires. Redis does not know the option.
      {{"REPLCONF", "version", "9.0.0"}, false},
      // Before 6.2 a stream of commands follows the snapshot.
      {{"REPLCONF", "rdb-only", "1"}, false, wants == Wants::kSnapshot},
      // From 7.0 on. A server that cannot go on sends a snapshot, which nobody reads then: it has no keys.
      {{"REPLCONF", "rdb-filter-only", ""}, false, wants == Wants::kRest},
  };
  for (const Step& step : steps) {
    if (!step.is_wanted) continue;
    const auto answered = connection_.Command(step.command);
    if (answered.ok()) continue;
    if (!step.is_needed && answered.error().code == ErrorCode::kServerError) continue;
    return answered.error();
  }
  return {};
}

Status ReplicationLink::AskFor(const std::optional<ReplicationPoint>& from) {
  const std::string next_byte = from ? std::to_string(from->offset + 1) : "-1";
  connection_.SendRaw(CommandBytes({"PSYNC", from ? Bytes(from->id) : "?", next_byte}));
  PRM_RETURN_IF_ERROR(ReadSyncLine(from));
  return has_snapshot_ ? ReadSizeLine() : Status();
}

// A line without its end. While the snapshot is prepared the server sends empty lines.
Result<std::string> ReplicationLink::ReadLine() {
  std::string line;
  while (line.size() <= kLongestLine) {
    char byte = 0;
    const auto read = connection_.ReadRaw(&byte, 1);
    if (!read.ok()) return read.error();
    if (byte != '\n') {
      line += byte;
      continue;
    }
    if (line.empty()) continue;
    if (line.back() == '\r') line.pop_back();
    if (line[0] == '-') return connection_.ToError(Bytes(line).substr(1), "PSYNC");
    return line;
  }
  return connection_.UnknownReply("PSYNC");
}

// "+FULLRESYNC id offset", "+CONTINUE id" or, before Redis 4.0, "+CONTINUE".
Status ReplicationLink::ReadSyncLine(const std::optional<ReplicationPoint>& from) {
  const auto read = ReadLine();
  if (!read.ok()) return read.error();
  const Bytes line = read.value();
  if (const auto words = After("+FULLRESYNC", line)) {
    const size_t space = std::min(words->find(' '), words->size());
    const auto offset = ParseNumber(words->substr(std::min(space + 1, words->size())));
    if (!IsReplicationId(words->substr(0, space)) || !offset) return connection_.UnknownReply("PSYNC");
    point_ = {std::string(words->substr(0, space)), *offset};
    has_snapshot_ = true;
    return {};
  }
  const auto id = After("+CONTINUE", line);
  if (!from || !id || (!id->empty() && !IsReplicationId(*id))) return connection_.UnknownReply("PSYNC");
  point_ = *from;
  if (!id->empty()) point_.id = *id;
  return {};
}

Status ReplicationLink::ReadSizeLine() {
  constexpr Bytes kMark = "$EOF:";
  const auto read = ReadLine();
  if (!read.ok()) return read.error();
  const Bytes line = read.value();
  if (line.substr(0, kMark.size()) == kMark && line.size() == kMark.size() + kMarkBytes) {
    end_mark_ = line.substr(kMark.size());
    return {};
  }
  if (line[0] == '$') size_ = ParseNumber(line.substr(1));
  if (!size_) return connection_.UnknownReply("PSYNC");
  left_ = *size_;
  return {};
}

Result<size_t> ReplicationLink::ReadSnapshot(char* to, size_t size) {
  if (!size_) return connection_.ReadRaw(to, size);
  if (left_ == 0) return size_t{0};
  auto read = connection_.ReadRaw(to, static_cast<size_t>(std::min<uint64_t>(size, left_)));
  if (read.ok()) left_ -= read.value();
  return read;
}

Result<size_t> ReplicationLink::ReadStream(char* to, size_t size, long wait_ms) {
  size_t bytes = put_back_.copy(to, size);
  put_back_.erase(0, bytes);
  if (bytes == 0) {
    const auto read = connection_.ReadRaw(to, size, wait_ms);
    if (!read.ok()) return read;
    bytes = read.value();
  }
  point_.offset += bytes;
  FindQuestion({to, bytes});
  return bytes;
}

// The question may be split between two pieces of the stream.
void ReplicationLink::FindQuestion(Bytes bytes) {
  constexpr size_t kMostTail = kQuestion.size() - 1;
  tail_ += bytes.substr(0, kMostTail);
  if (tail_.find(kQuestion) != std::string::npos || bytes.find(kQuestion) != Bytes::npos)
    wants_acknowledgement_ = true;
  if (bytes.size() > kMostTail) tail_ = bytes.substr(bytes.size() - kMostTail);
  if (tail_.size() > kMostTail) tail_.erase(0, tail_.size() - kMostTail);
}

void ReplicationLink::Acknowledge(uint64_t offset) {
  connection_.SendRaw(CommandBytes({"REPLCONF", "ACK", std::to_string(offset)}));
  wants_acknowledgement_ = false;
}

}  // namespace prm::redis
