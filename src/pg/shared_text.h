// A text in dynamic shared memory, which one process lends to others.
#pragma once

#include "pg/pg.h"

struct dsm_segment;

namespace prm::pg {

// Is there as long as the object, or the process. Nobody but this server's processes can read it, and it is
// never on a disk of its own accord, unless dynamic_shared_memory_type is mmap.
class SharedText {
 public:
  // Errors: 53000 when the server has no segment left, and those of the operating system.
  explicit SharedText(const std::string &content);
  ~SharedText();
  SharedText(const SharedText &) = delete;
  SharedText &operator=(const SharedText &) = delete;

  uint32 handle() const;  // never 0

 private:
  dsm_segment *segment_;
};

// A copy of it, for another process. nullopt: it is gone. Needs a transaction.
std::optional<std::string> ReadSharedText(uint32 handle);

}  // namespace prm::pg
