// Limits what reading again costs the server, and how often a large value is read.
#include "live/follower.h"
#include "pg/background.h"

namespace prm {

using source::RereadBudget;

namespace {

constexpr int64 kLongestPauseMs = 100;

}  // namespace

// Waits until more of the server's time may be taken. Meanwhile the link goes on receiving.
void Follower::KeepToBudget() {
  while (int64 const pause_us = budget_.PauseUs(RereadBudget::NowUs())) {
    link_.Look();
    pg::Sleep(static_cast<long>(std::min(pause_us / 1000 + 1, kLongestPauseMs)));
  }
}

// Whether a key waits because its value is large, and was read a short time ago.
bool Follower::Space(const KeyId &id, const KeyChange &change) {
  if (change.is_due || change.offset <= link_.flush_offset()) return false;
  int64 const pause_ms = spacing_.PauseMs(id, pg::MonotonicMs());
  if (pause_ms == 0) return false;
  Wait(change, KeyAhead::kAgain, change.offset, change.tries, pause_ms);
  waiting_[id].bytes = spacing_.BytesOf(id);
  return true;
}

// Notes which of the values are large, or were, and how long it took to read them.
void Follower::NoteLarge(const std::vector<source::NamedKey> &keys, int64 took_ms, Batch &batch) const {
  double bytes = 1;
  for (const source::NamedKey &key : keys) bytes += static_cast<double>(PayloadSize(key.entry));
  for (const source::NamedKey &key : keys) {
    KeyId id = {key.entry.db, key.entry.key};
    uint64 const size = PayloadSize(key.entry);
    if (size < stream::kLargeValueBytes && spacing_.BytesOf(id) == 0) continue;
    double const share = static_cast<double>(size) / bytes;
    batch.large.push_back({std::move(id), size, static_cast<int64>(static_cast<double>(took_ms) * share)});
  }
}

// Notes how long it took to store the batch.
void Follower::SpaceLarge(const Batch &batch, int64 stored_in_ms) {
  if (batch.large.empty()) return;
  double bytes = 1;
  for (const auto &[id, change] : batch.keys) bytes += static_cast<double>(PayloadSize(change.entry));
  for (const LargeValue &value : batch.large) {
    double const share = std::min(static_cast<double>(value.bytes) / bytes, 1.0);
    int64 const took_ms = value.read_ms + static_cast<int64>(static_cast<double>(stored_in_ms) * share);
    spacing_.Note(value.id, value.bytes, took_ms, pg::MonotonicMs());
  }
}

}  // namespace prm
