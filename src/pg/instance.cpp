#include "pg/instance.h"

#include <fcntl.h>
#include <unistd.h>

#include "core/small_file.h"
#include "pg/error.h"
#include "pg/guard.h"
#include "pg/virtual_file.h"

namespace prm::pg {
namespace {

constexpr char kDirectory[] = "pg_stat";
constexpr char kFile[] = "pg_stat/pgsql_tmp_redis_migrate_instance";
constexpr size_t kNumberBytes = 32;

// The number in the file. Nothing: there is none, or it cannot be read.
std::optional<std::string> ReadNumber() {
  auto const file = ReadSmallFile(kFile);
  if (!file.ok() || file.value().bytes.size() != kNumberBytes ||
      file.value().bytes.find_first_not_of("0123456789abcdef") != std::string::npos)
    return std::nullopt;
  return file.value().bytes;
}

std::string DrawNumber() {
  unsigned char drawn[kNumberBytes / 2];
  if (!pg_strong_random(drawn, sizeof drawn))
    throw Failure(ERRCODE_INTERNAL_ERROR, "could not draw the number of this server");
  std::string number;
  for (unsigned char const byte : drawn) {
    number += "0123456789abcdef"[byte >> 4];
    number += "0123456789abcdef"[byte & 15];
  }
  return number;
}

// Another process may do the same at this moment: the first number that has its place counts.
void WriteNumber() {
  std::string const fresh = std::string(kFile) + "." + std::to_string(MyProcPid);
  {
    VirtualFile file(fresh, O_RDWR | O_CREAT | O_TRUNC);
    file.Write(0, DrawNumber());
    file.Sync();
  }
  bool const is_linked = link(fresh.c_str(), kFile) == 0;
  int const error = errno;
  unlink(fresh.c_str());
  if (!is_linked && error != EEXIST) ThrowFileError("create", kFile, error);
  Call([] { fsync_fname(kDirectory, true); });
}

}  // namespace

std::string ThisInstance() {
  std::optional<std::string> number = ReadNumber();
  if (!number) {
    WriteNumber();
    number = ReadNumber();
  }
  if (!number)
    throw Failure(ERRCODE_DATA_CORRUPTED, std::string("file \"") + kFile + "\" is damaged",
                  "It is in the data directory, and has the number by which this server knows itself.",
                  "Remove it. Live runs of this server then wait for redis_migrate.confirm_instance.");
  return *number + "/" + std::to_string(Call([] { return GetWALInsertionTimeLine(); }));
}

}  // namespace prm::pg
