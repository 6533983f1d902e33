// The place from which a migration reads; and the source in this database: the entries that earlier runs kept
// in the archive.
#pragma once

#include "connect/source_reader.h"
#include "mapping/catalog.h"

namespace prm {

// source: as run's argument.
SourcePlace PlaceOf(const Migration &migration, const std::string &source);

class ArchiveSource : public source::Source {
 public:
  // position: that of an earlier batch, or empty for the beginning. Needs SPI.
  ArchiveSource(std::string migration, source::KeyFilter &filter, size_t batch_keys,
                const std::string &position);
  Result<bool> Next(source::Batch &batch) override;

 private:
  std::string ReadChunks(int db, Bytes key, Bytes index_key, size_t size);

  std::string migration_;
  source::KeyFilter &filter_;
  size_t batch_keys_;
  int db_ = -1;  // of the last key
  std::string index_key_;
};

}  // namespace prm
