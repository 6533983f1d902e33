// A spool in a temporary file of PostgreSQL.
#pragma once

#include "connect/file_spool.h"

namespace prm {

class TemporarySpool : public FileSpool<ByteSpool> {
 public:
  static std::unique_ptr<ByteSpool> Make() { return std::make_unique<TemporarySpool>(); }
  std::string identity() const override { return file_.path(); }
};

}  // namespace prm
