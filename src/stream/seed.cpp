#include "stream/seed.h"

#include <algorithm>
#include <charconv>

#include "rdb/file_reader.h"

namespace prm::stream {

namespace {

constexpr size_t kCopyBytes = size_t{1} << 20;
constexpr int64_t kMostOffset = int64_t{1} << 60;
constexpr int64_t kMostDb = 1 << 20;

std::optional<int64_t> NumberOf(const rdb::FileNotes& notes, const std::string& name, int64_t most) {
  const auto note = notes.aux.find(name);
  if (note == notes.aux.end()) return std::nullopt;
  int64_t number = 0;
  const char* const end = note->second.data() + note->second.size();
  const auto [at, failed] = std::from_chars(note->second.data(), end, number);
  if (failed != std::errc() || at != end || number < 0 || number > most) return std::nullopt;
  return number;
}

Error CannotGoOn(const std::string& address, const std::string& detail, const std::string& hint) {
  return {ErrorCode::kInvalidArgument,
          "the stream of Redis at " + address + " cannot be followed from the dump file on", detail, hint};
}

Status CheckWhole(ByteSource& dump) {
  rdb::FileReader reader(dump, {});
  PRM_RETURN_IF_ERROR(reader.Open());
  while (true) {
    const auto next = reader.Next();
    if (!next.ok()) return next.error();
    if (!next.value()) break;
    PRM_RETURN_IF_ERROR(reader.SkipValue());
  }
  if (reader.notes().checksum == false)
    return Error{ErrorCode::kCorruptData, "the checksum of the dump file is wrong", {}, {}};
  if (reader.end() == dump.size()) return {};
  return Error{ErrorCode::kCorruptData,
               "the dump file does not end where it should",
               "It ends at byte " + std::to_string(reader.end()) + " of " + std::to_string(dump.size()) + ".",
               {}};
}

}  // namespace

Result<Seed> ReadSeed(ByteSource& file) {
  rdb::FileReader reader(file, {});
  PRM_RETURN_IF_ERROR(reader.Open());
  const auto next = reader.Next();
  if (!next.ok()) return next.error();
  const auto id = reader.notes().aux.find("repl-id");
  const auto offset = NumberOf(reader.notes(), "repl-offset", kMostOffset);
  const auto db = NumberOf(reader.notes(), "repl-stream-db", kMostDb);
  if (id != reader.notes().aux.end() && redis::IsReplicationId(id->second) && offset && db)
    return Seed{{id->second, static_cast<uint64_t>(*offset)}, static_cast<int>(*db)};
  return Error{
      ErrorCode::kInvalidArgument, "the dump file does not tell its place in the replication stream",
      "Redis notes it, from 4.0 on, while it has a replication backlog: once a replica was connected.",
      "Take the file that redis-cli --rdb FILE writes, or connect a replica and run BGSAVE."};
}

Status CopyDump(ByteSource& from, ByteSpool& to, uint64_t most_bytes) {
  if (from.size() > most_bytes)
    return Error{
        ErrorCode::kTooLarge,
        "the dump file is larger than " + std::to_string(most_bytes >> 20) + " MB, the most that is allowed",
        {},
        {}};
  std::string bytes(kCopyBytes, '\0');
  while (to.size() < from.size()) {
    from.CheckInterrupts();
    const size_t wanted = std::min<uint64_t>(bytes.size(), from.size() - to.size());
    const auto read = from.Read(to.size(), bytes.data(), wanted);
    if (!read.ok()) return read.error();
    if (read.value() == 0) break;  // it has become shorter
    PRM_RETURN_IF_ERROR(to.Append(Bytes(bytes.data(), read.value())));
  }
  return CheckWhole(to);
}

Status CheckContinues(const redis::ServerInfo& info, const Seed& seed, const std::string& address) {
  const std::string again = "Run BGSAVE, and start with the new file.";
  const auto next = static_cast<int64_t>(seed.point.offset) + 1;
  const bool is_own = info.Get("master_replid") == seed.point.id;
  const bool is_earlier = info.Get("master_replid2") == seed.point.id;
  if (!is_own && !is_earlier)
    return CannotGoOn(address,
                      "The file is of replication id " + seed.point.id + ", the server of " +
                          info.Show("master_replid") + ".",
                      again);
  // The server has an earlier history only up to there.
  const auto second = info.GetInteger("second_repl_offset").value_or(-1);
  if (!is_own && next > second)
    return CannotGoOn(address,
                      "The file is of offset " + std::to_string(seed.point.offset) +
                          ", and the server left that history at " + std::to_string(second) + ".",
                      again);
  const auto first = info.GetInteger("repl_backlog_first_byte_offset");
  const auto length = info.GetInteger("repl_backlog_histlen");
  if (info.Get("repl_backlog_active") != "1" || !first || !length)
    return CannotGoOn(address, "The server keeps no replication backlog.",
                      "Take the file that redis-cli --rdb FILE writes, or connect a replica and run BGSAVE.");
  if (next < *first)
    return CannotGoOn(
        address,
        "The file is of offset " + std::to_string(seed.point.offset) +
            ", and the server's backlog begins at " + std::to_string(*first) + ".",
        "CONFIG SET repl-backlog-size to more than what is written between BGSAVE and the start, now about " +
            std::to_string((*first + *length - next) / 1024 + 1) + " kB. " + again);
  if (next > *first + *length)
    return CannotGoOn(address,
                      "The file is of offset " + std::to_string(seed.point.offset) +
                          ", which the server has not reached: it ends at " +
                          std::to_string(*first + *length - 1) + ".",
                      again);
  return {};
}

}  // namespace prm::stream
