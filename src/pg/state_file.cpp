#include "pg/state_file.h"

#include <sys/stat.h>

namespace prm::pg {
namespace {

constexpr uint64 kMagic = UINT64CONST(0x3145544154534d52);  // "RMSTATE1"

struct FileHeader {
  uint64 magic;
  uint64 kind;
};

}  // namespace

StateFileWriter::StateFileWriter(const char *path, uint64 kind) {
  snprintf(path_, sizeof path_, "%s", path);
  snprintf(temporary_, sizeof temporary_, "%s.tmp", path);
  INIT_CRC32C(crc_);
  file_ = AllocateFile(temporary_, PG_BINARY_W);
  ok_ = file_ != nullptr;
  if (!ok_) Fail("create");
  Put(FileHeader{kMagic, kind});
}

StateFileWriter::~StateFileWriter() {
  if (file_ != nullptr) {
    FreeFile(file_);
    unlink(temporary_);
  }
  free(buffer_);
}

void StateFileWriter::Fail(const char *what) {
  ok_ = false;
  ereport(LOG, (errcode_for_file_access(), errmsg("could not %s file \"%s\": %m", what, temporary_)));
}

void StateFileWriter::Write(const void *bytes, size_t size) {
  if (!ok_ || size == 0) return;
  COMP_CRC32C(crc_, bytes, size);
  if (fwrite(bytes, 1, size, file_) != size) Fail("write");
}

void *StateFileWriter::Buffer(size_t size) {
  if (size > buffer_size_) {
    free(buffer_);
    buffer_ = malloc(size);
    buffer_size_ = buffer_ != nullptr ? size : 0;
    if (buffer_ == nullptr && ok_) Fail("gather the content of");
  }
  return buffer_;
}

bool StateFileWriter::Finish() {
  if (!ok_) return false;
  pg_crc32c crc = crc_;
  FIN_CRC32C(crc);
  if (fwrite(&crc, 1, sizeof crc, file_) != sizeof crc || fflush(file_) != 0 ||
      pg_fsync(fileno(file_)) != 0) {
    Fail("write");
    return false;
  }
  FILE *file = std::exchange(file_, nullptr);
  if (FreeFile(file) != 0) {
    Fail("close");
    unlink(temporary_);
    return false;
  }
  return durable_rename(temporary_, path_, LOG) == 0;
}

StateFileReader::StateFileReader(const char *path, uint64 kind) : path_(path) {
  file_ = AllocateFile(path, PG_BINARY_R);
  if (file_ == nullptr) {
    if (errno != ENOENT)
      ereport(LOG, (errcode_for_file_access(), errmsg("could not open file \"%s\": %m", path)));
    return;
  }
  Check(kind);
}

void StateFileReader::Check(uint64 kind) {
  struct stat status;
  if (fstat(fileno(file_), &status) != 0 ||
      status.st_size < static_cast<off_t>(sizeof(FileHeader) + sizeof(pg_crc32c)))
    return Refuse("it is cut short");
  const uint64 size = static_cast<uint64>(status.st_size) - sizeof(pg_crc32c);
  pg_crc32c crc, stored;
  INIT_CRC32C(crc);
  FileHeader header = {};
  left_ = size;
  char buffer[8192];
  for (uint64 done = 0; ok() && done < size;) {
    size_t part = std::min<uint64>(sizeof buffer, size - done);
    Read(buffer, part);
    if (!ok()) return;
    if (done == 0) memcpy(&header, buffer, sizeof header);
    COMP_CRC32C(crc, buffer, part);
    done += part;
  }
  FIN_CRC32C(crc);
  left_ = sizeof stored;
  Read(&stored, sizeof stored);
  if (!ok()) return;
  if (header.magic != kMagic || !EQ_CRC32C(crc, stored)) return Refuse("it is damaged");
  if (header.kind != kind) return Refuse("it was written by another version");
  left_ = size - sizeof header;
  if (fseek(file_, sizeof header, SEEK_SET) != 0) Refuse("it cannot be read");
}

StateFileReader::~StateFileReader() {
  if (file_ != nullptr) FreeFile(file_);
}

void StateFileReader::Refuse(const char *why) {
  ereport(LOG, (errcode(ERRCODE_DATA_CORRUPTED), errmsg("file \"%s\" is not used: %s", path_, why),
                errdetail("The server starts without what was saved in it.")));
  FreeFile(std::exchange(file_, nullptr));
}

void StateFileReader::Read(void *bytes, size_t size) {
  if (!ok()) return;
  if (size > left_ || fread(bytes, 1, size, file_) != size) return Refuse("it is cut short");
  left_ -= size;
}

}  // namespace prm::pg
