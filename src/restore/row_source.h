// The rows of a migration's targets as a source: the keys that they would write back.
#pragma once

#include "reverse/reverse_mapping.h"
#include "source/source.h"

namespace prm {

// The mappings in their order, each by the names of its keys. A key whose row its reverse query cannot make a
// value of is kTooLarge, with a WARNING.
class RowSource : public source::Source {
 public:
  // position: that of an earlier batch, or empty. Needs SPI. A WARNING names mappings that have no way back.
  // Errors: 55000 if none has, those of FindReverses.
  RowSource(const Migration &migration, source::KeyFilter &filter, size_t batch_keys,
            const std::string &position);
  // Rolls back if a row is at fault. Errors: those of reverse queries.
  Result<bool> Next(source::Batch &batch) override;

 private:
  void Add(const ReverseMapping &reverse, const std::set<RowName> &names, source::Batch &batch);

  source::KeyFilter &filter_;
  int batch_keys_;
  std::vector<ReverseMapping> reverses_;
  size_t next_ = 0;          // mapping
  RowName last_;             // name of the page before; empty: none
  std::set<RowName> left_;   // names of the page for which there was no room
  RowName last_after_left_;  // last_ then
};

}  // namespace prm
