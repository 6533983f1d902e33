#include "pg/shared_text.h"

#include "pg/guard.h"

extern "C" {
#include "storage/dsm.h"
}

namespace prm::pg {

SharedText::SharedText(const std::string &content) {
  uint64 const size = content.size();
  segment_ = Call([&]() -> dsm_segment * {
    dsm_segment *segment = dsm_create(sizeof size + size, DSM_CREATE_NULL_IF_MAXSEGMENTS);
    if (segment == nullptr) return nullptr;
    dsm_pin_mapping(segment);
    char *memory = static_cast<char *>(dsm_segment_address(segment));
    memcpy(memory, &size, sizeof size);
    memcpy(memory + sizeof size, content.data(), size);
    return segment;
  });
  if (segment_ == nullptr)
    throw Failure(ERRCODE_INSUFFICIENT_RESOURCES, "the server has no segment of shared memory left");
}

SharedText::~SharedText() { dsm_detach(segment_); }

uint32 SharedText::handle() const { return dsm_segment_handle(segment_); }

std::optional<std::string> ReadSharedText(uint32 handle) {
  dsm_segment *const segment = Call([&] { return dsm_attach(handle); });
  if (segment == nullptr) return std::nullopt;
  const char *const memory = static_cast<const char *>(dsm_segment_address(segment));
  uint64 size;
  memcpy(&size, memory, sizeof size);
  std::string content(memory + sizeof size, size);
  Call([&] { dsm_detach(segment); });
  return content;
}

}  // namespace prm::pg
