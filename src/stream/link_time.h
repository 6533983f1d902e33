// Tells when the commands were run that a replication link reads.
//
// While the link reads all that the server has to send, a command was run just before it arrives. After an
// interruption, or behind a snapshot, it was run at some time since the link last had everything.
#pragma once

#include "source/entry.h"

namespace prm::stream {

class LinkTime {
 public:
  // The link has a server whose stream reached `offset` at now_ms, or a little later. since_ms: when the last
  // byte before was read, or the snapshot was asked for.
  void Connect(uint64_t offset, int64_t since_ms, int64_t now_ms) {
    offset_ = offset;
    since_ms_ = since_ms;
    connected_ms_ = now_ms;
    is_late_ = true;
  }

  // When that was run which has been read now, from one offset to another. is_all: nothing more had arrived.
  source::TimeSpan Read(uint64_t begin, uint64_t end, bool is_all, int64_t now_ms) {
    const bool was_late = is_late_;
    if (end >= offset_ && is_all) is_late_ = false;
    if (!was_late) return {now_ms, now_ms};
    return {begin < offset_ ? since_ms_ : connected_ms_, now_ms};
  }

 private:
  uint64_t offset_ = 0;
  int64_t since_ms_ = 0;
  int64_t connected_ms_ = 0;
  bool is_late_ = false;
};

}  // namespace prm::stream
