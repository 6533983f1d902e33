// The rejects of a migration as a source.
#pragma once

#include "pg/pg.h"
#include "source/source.h"

namespace prm {

// The open rejects: of each key the newest, of the last run that read all keys and of those after it; without
// those that are settled. Keys of which no payload was kept are kTooLarge.
class RejectSource : public source::Source {
 public:
  // position: that of an earlier batch, or empty. Needs SPI. Holds 8 bytes for each reject.
  RejectSource(const std::string &migration, source::KeyFilter &filter, size_t batch_keys,
               const std::string &position);
  Result<bool> Next(source::Batch &batch) override;

 private:
  source::KeyFilter &filter_;
  size_t batch_keys_;
  std::vector<int64> ids_;  // ascending
  size_t next_ = 0;
};

}  // namespace prm
