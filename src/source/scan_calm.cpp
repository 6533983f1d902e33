// Values of a database without expiries are read without asking for their expiries.
//
// INFO tells how many keys of a database have an expiry, and how many keys have expired so far. If none has
// one before and after some values are read, and no key expired in between, then each of these keys, when it
// was read,
// - had no expiry, or
// - had one for a while, lost it by PERSIST or by being written again, and has none since; the same can also
//   happen between two readings of PEXPIRETIME, or
// - had one and was deleted since by the application: it is returned as it would have been a moment before.
//
// It is impossible that the key had an expiry and still has it, or that it expired.
//
// In a database with expiries INFO also tells how much has been written to the server. If it is the same
// before and after some values are read, the expiry that is read once, after the value, belongs to it; a key
// that expires in between has vanished. This is tried once some answers of INFO have shown that nothing is
// written.
//
// Values that INFO does not prove are read again, with their expiries before and after.
//
// On a replica keys that expire are deleted by its master, and are not counted.
#include <algorithm>
#include <utility>

#include "source/scan.h"

namespace prm::source {

namespace {

// So many values are read with their expiries before INFO is asked whether that is still needed.
constexpr uint64_t kValuesPerInfo = 2000;

// Each wrong guess doubles the number of answers without writes that must precede the next, up to this.
constexpr int kMostQuietInfos = 8;

}  // namespace

void ScanSource::AskInfo(bool begins) {
  connection_.Append({"INFO"}, redis::kLargeReply);
  Request request{Command::kInfo, 0};
  request.begins = begins;
  requests_.push_back(request);
  infos_.push_back(std::exchange(unproved_, {}));
  asked_since_info_ = 0;
}

void ScanSource::AskInfoNowAndThen() {
  // A server may close a connection that is idle while names come over the other one.
  const bool is_idle = names_link_ != nullptr && selected_ && requests_.empty();
  if (is_idle || !unproved_.empty() || (activity_ && asked_since_info_ >= kValuesPerInfo)) AskInfo(false);
}

// A server that refuses INFO from now on only loses the shortcut.
Status ScanSource::AnswerInfo(const Request& request) {
  const std::vector<uint64_t> slots = std::move(infos_.front());
  infos_.pop_front();
  const Result<redis::Reply> received = connection_.Receive();
  if (!received.ok()) return received.error();
  std::optional<Activity> now;
  if (const auto text = received.value().String()) now = ActivityOf(redis::ServerInfo(*text));
  const std::optional<Activity> before = std::exchange(activity_, now);
  const bool is_both = before && now && !request.begins;
  const bool is_calm =
      is_both && !before->has_expiries && !now->has_expiries && before->expired_keys == now->expired_keys;
  const bool is_quiet = is_both && now->written && before->written == now->written;
  bool was_wrong = false;
  for (const uint64_t number : slots) {
    if (number < first_slot_ || At(number).stage != Stage::kUnproved) continue;
    if (At(number).read == ExpiryReads::kNone ? is_calm : is_quiet) {
      Finish(At(number));
    } else {
      ReadWithExpiries(number);
      was_wrong = true;
    }
  }
  quiet_infos_ = is_quiet ? quiet_infos_ + 1 : 0;
  if (was_wrong) needed_quiet_infos_ = std::min(2 * needed_quiet_infos_, kMostQuietInfos);
  const bool is_at_rest = quiet_infos_ >= needed_quiet_infos_;
  const bool begins_calm = request.begins && now && !now->has_expiries;
  if (begins_calm || (is_calm && (is_at_rest || expiry_reads_ == ExpiryReads::kNone))) {
    expiry_reads_ = ExpiryReads::kNone;
  } else {
    expiry_reads_ = is_at_rest ? ExpiryReads::kOnce : ExpiryReads::kTwice;
  }
  return {};
}

// redis 7.0 src/rdb.c: a snapshot takes what was written before it from the count, when it ends.
std::optional<ScanSource::Activity> ScanSource::ActivityOf(const redis::ServerInfo& info) const {
  const std::optional<int64_t> expired_keys = info.GetInteger("expired_keys");
  if (info.run_id() != run_id_ || info.role() != "master" || !expired_keys) return {};
  const Bytes keyspace = info.Get("db" + std::to_string(activity_db_));  // "keys=3,expires=1,avg_ttl=99"
  Activity activity{keyspace.find(",expires=0,") == Bytes::npos, *expired_keys, {}};
  if (info.Get("rdb_bgsave_in_progress") != "0") return activity;
  const std::optional<int64_t> changes = info.GetInteger("rdb_changes_since_last_save");
  const std::optional<int64_t> saved_at = info.GetInteger("rdb_last_save_time");
  const std::optional<int64_t> now_us = info.GetInteger("server_time_usec");
  // FLUSHALL saves, and rdb_saves does not count it: only a save in a later second shows.
  if (changes && saved_at && now_us && *now_us / 1000000 > *saved_at)
    activity.written = std::to_string(*changes) + " " + std::to_string(*saved_at);
  return activity;
}

// Forgets what was read of the key.
void ScanSource::ReadWithExpiries(uint64_t number) {
  Slot& slot = At(number);
  held_bytes_ -= slot.entry.payload.size();
  std::string().swap(slot.entry.payload);
  slot.entry.expires_at_ms.reset();
  slot.needs_expiries = true;
  slot.stage = slot.entry.plain ? Stage::kNamed : Stage::kSized;
  slot.entry.plain = false;
  next_named_ = std::min(next_named_, number);
  next_dump_ = std::min(next_dump_, number);
}

// Ends the reading of a key, unless a value is still to be proved.
void ScanSource::Settle(Slot& slot, const Request& request) {
  if (request.expiry_reads == ExpiryReads::kTwice || slot.entry.state != EntryState::kRead) {
    Finish(slot);
  } else {
    slot.stage = Stage::kUnproved;
    slot.read = request.expiry_reads;
  }
}

}  // namespace prm::source
