#include "redis/snapshot_link.h"

#include <algorithm>
#include <charconv>

namespace prm::redis {

namespace {

constexpr size_t kMarkBytes = 40;  // of a replication id and of an end mark
constexpr size_t kLongestLine = 512;

bool IsHexMark(Bytes text) {
  return text.size() == kMarkBytes && text.find_first_not_of("0123456789abcdefABCDEF") == Bytes::npos;
}

std::optional<uint64_t> ParseNumber(Bytes digits) {
  uint64_t number = 0;
  const char* const end = digits.data() + digits.size();
  const auto [at, failed] = std::from_chars(digits.data(), end, number);
  if (failed != std::errc() || at != end) return std::nullopt;
  return number;
}

}  // namespace

Result<std::unique_ptr<SnapshotLink>> SnapshotLink::Open(Connection& connection) {
  std::unique_ptr<SnapshotLink> link(new SnapshotLink(connection));
  PRM_RETURN_IF_ERROR(link->Introduce());
  connection.SendRaw("*3\r\n$5\r\nPSYNC\r\n$1\r\n?\r\n$2\r\n-1\r\n");
  PRM_RETURN_IF_ERROR(link->ReadSyncLine());
  PRM_RETURN_IF_ERROR(link->ReadSizeLine());
  return link;
}

Status SnapshotLink::Introduce() {
  struct Step {
    std::initializer_list<Bytes> command;
    bool is_needed;
  };
  const Step steps[] = {
      {{"REPLCONF", "listening-port", "0"}, true},
      {{"REPLCONF", "capa", "eof", "capa", "psync2"}, true},
      // Valkey from 9.1 on writes an older format to replicas that do not name their version, and fails if a
      // field of a hash expires. Redis does not know the option.
      {{"REPLCONF", "version", "9.0.0"}, false},
      // Before 6.2 a stream of commands follows the snapshot.
      {{"REPLCONF", "rdb-only", "1"}, false},
  };
  for (const Step& step : steps) {
    const auto answered = connection_.Command(step.command);
    if (answered.ok()) continue;
    if (!step.is_needed && answered.error().code == ErrorCode::kServerError) continue;
    return answered.error();
  }
  return {};
}

// A line without its end. While the snapshot is prepared the server sends empty lines.
Result<std::string> SnapshotLink::ReadLine() {
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

Status SnapshotLink::ReadSyncLine() {
  constexpr Bytes kFullSync = "+FULLRESYNC ";
  const auto read = ReadLine();
  if (!read.ok()) return read.error();
  const Bytes line = read.value();
  const Bytes words = line.substr(std::min(kFullSync.size(), line.size()));
  const size_t space = words.find(' ');
  const auto offset = ParseNumber(words.substr(space == Bytes::npos ? words.size() : space + 1));
  if (line.substr(0, kFullSync.size()) != kFullSync || !IsHexMark(words.substr(0, space)) || !offset) {
    return connection_.UnknownReply("PSYNC");
  }
  return {};
}

Status SnapshotLink::ReadSizeLine() {
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

Result<size_t> SnapshotLink::Read(char* to, size_t size) {
  if (!size_) return connection_.ReadRaw(to, size);
  if (left_ == 0) return size_t{0};
  auto read = connection_.ReadRaw(to, static_cast<size_t>(std::min<uint64_t>(size, left_)));
  if (read.ok()) left_ -= read.value();
  return read;
}

}  // namespace prm::redis
