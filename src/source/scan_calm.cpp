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
// It is impossible that the key had an expiry and still has it, or that it expired. Values that this does not
// prove are read again with their expiries, as are all others of the database from then on.
//
// On a replica keys that expire are deleted by its master, and are not counted.
#include <algorithm>
#include <utility>

#include "source/scan.h"

namespace prm::source {

void ScanSource::AskInfo(bool begins) {
  connection_.Append({"INFO"}, redis::kLargeReply);
  Request request{Command::kInfo, 0};
  request.begins = begins;
  requests_.push_back(request);
  infos_.push_back(std::exchange(unproved_, {}));
}

// A server that refuses INFO from now on only loses the shortcut.
Status ScanSource::AnswerInfo(const Request& request) {
  const std::vector<uint64_t> slots = std::move(infos_.front());
  infos_.pop_front();
  const Result<redis::Reply> received = connection_.Receive();
  if (!received.ok()) return received.error();
  std::optional<int64_t> expired;
  if (const auto text = received.value().String()) expired = ExpiredKeysIfCalm(redis::ServerInfo(*text));
  const bool proves = calm_ && expired == calm_;
  if (request.begins || !proves) calm_ = request.begins ? expired : std::nullopt;
  for (const uint64_t number : slots) {
    if (number < first_slot_ || At(number).stage != Stage::kUnproved) continue;
    if (proves) {
      Finish(At(number));
    } else {
      ReadWithExpiry(number);
    }
  }
  return {};
}

// The number of keys that have expired since the server was started, if no key of the database has an expiry.
std::optional<int64_t> ScanSource::ExpiredKeysIfCalm(const redis::ServerInfo& info) const {
  if (info.run_id() != run_id_ || info.role() != "master") return {};
  const Bytes keyspace = info.Get("db" + std::to_string(calm_db_));  // "keys=3,expires=1,avg_ttl=99"
  if (keyspace.find(",expires=0,") == Bytes::npos) return {};
  return info.GetInteger("expired_keys");
}

// Forgets what was read of the key.
void ScanSource::ReadWithExpiry(uint64_t number) {
  Slot& slot = At(number);
  held_bytes_ -= slot.entry.payload.size();
  std::string().swap(slot.entry.payload);
  slot.needs_expiry = true;
  slot.stage = slot.entry.plain ? Stage::kNamed : Stage::kSized;
  slot.entry.plain = false;
  next_named_ = std::min(next_named_, number);
  next_dump_ = std::min(next_dump_, number);
}

// Ends the reading of a key, unless a value is still to be proved.
void ScanSource::Settle(Slot& slot, const Request& request) {
  if (request.with_expiry || slot.entry.state != EntryState::kRead) {
    Finish(slot);
  } else {
    slot.stage = Stage::kUnproved;
  }
}

}  // namespace prm::source
