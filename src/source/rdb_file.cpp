#include "source/rdb_file.h"

#include <algorithm>
#include <charconv>
#include <cstdio>
#include <tuple>
#include <utility>

#include "core/printable.h"
#include "source/living_fields.h"
#include "source/position_field.h"

namespace prm::source {

namespace {

// A batch ends after this many bytes of the file even if the filter wants few of them, so that the position
// is stored now and then.
constexpr uint64_t kMaxBytesOfFile = uint64_t{64} << 20;

// Strings of a batch whose memory the next one uses: more is freed.
constexpr size_t kMostSpareBytes = 2 * kShortStringLimit;

template <typename Number>
bool ParseNumber(Bytes text, Number& number, int base = 10) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number, base);
  return error == std::errc() && end == text.data() + text.size();
}

}  // namespace

std::string RdbFilePosition::ToString() const {
  char crc[17];
  std::snprintf(crc, sizeof(crc), "%016llx", static_cast<unsigned long long>(place.crc));
  return "file=" + file + " size=" + std::to_string(size) + " db=" + std::to_string(place.db) +
         " crc=" + crc + " offset=" + std::to_string(place.offset);
}

Result<RdbFilePosition> RdbFilePosition::Parse(Bytes text) {
  Bytes rest = text;
  Bytes file, size, db, crc, offset;
  RdbFilePosition position;
  const bool valid =
      TakeField(rest, "file=", file) && TakeField(rest, " size=", size) && TakeField(rest, " db=", db) &&
      TakeField(rest, " crc=", crc) && TakeField(rest, " offset=", offset) && rest.empty() &&
      ParseNumber(size, position.size) && ParseNumber(db, position.place.db) && position.place.db >= 0 &&
      ParseNumber(crc, position.place.crc, 16) && ParseNumber(offset, position.place.offset);
  if (!valid) {
    return Error{
        ErrorCode::kInvalidArgument, "invalid position in a file \"" + Printable(text) + "\"", {}, {}};
  }
  position.file = file;
  return position;
}

RdbFileSource::RdbFileSource(ByteSource& file, const RdbFileOptions& options, KeyFilter& filter,
                             const rdb::FilePosition& place)
    : file_(file), options_(options), filter_(filter), reader_(file, place) {}

Result<std::unique_ptr<RdbFileSource>> RdbFileSource::Open(ByteSource& file, const RdbFileOptions& options,
                                                           KeyFilter& filter, const std::string& position) {
  if (!options.share.IsValid())
    return Error{ErrorCode::kInvalidArgument, "invalid share of the keys of a file", {}, {}};
  rdb::FilePosition place;
  if (!position.empty()) {
    const Result<RdbFilePosition> parsed = RdbFilePosition::Parse(position);
    if (!parsed.ok()) return parsed.error();
    if (parsed.value().file != file.identity() || parsed.value().size != file.size()) {
      return Error{ErrorCode::kInvalidArgument, "the file has been replaced since reading it began", {}, {}};
    }
    place = parsed.value().place;
  }
  std::unique_ptr<RdbFileSource> source(new RdbFileSource(file, options, filter, place));
  PRM_RETURN_IF_ERROR(source->reader_.Open());
  return source;
}

Result<bool> RdbFileSource::Next(Batch& batch) {
  if (dead_) return *dead_;
  if (done_) return false;
  // Stays set if a read or the filter throws: the entries taken so far would be missing from the next batch.
  dead_ = Error{ErrorCode::kServerError, "reading the file was interrupted", {}, {}};
  KeepSpare(batch.entries);
  batch.entries.clear();
  batch.bytes = 0;
  batch.expected_keys = 0;
  batch.goes_beyond = false;
  const uint64_t begin = reader_.position().offset;
  const Result<bool> filled = Fill(batch);
  batch.position = RdbFilePosition{file_.identity(), file_.size(), reader_.position()}.ToString();
  dead_.reset();
  if (filled.ok()) return filled.value() || reader_.position().offset != begin;
  dead_ = filled.error();
  if (batch.entries.empty()) return filled.error();
  return true;
}

// Thousands of small strings cost more to free and to allocate than to fill.
void RdbFileSource::KeepSpare(std::vector<Entry>& entries) {
  spare_.clear();
  for (Entry& entry : entries)
    if (entry.key.capacity() + entry.payload.capacity() <= kMostSpareBytes)
      spare_.emplace_back(std::move(entry.key), std::move(entry.payload));
}

Entry RdbFileSource::NewEntry() {
  Entry entry;
  if (spare_.empty()) return entry;
  std::tie(entry.key, entry.payload) = std::move(spare_.back());
  spare_.pop_back();
  entry.payload.clear();
  return entry;
}

// False at the end of the file, when there is nothing more to return.
Result<bool> RdbFileSource::Fill(Batch& batch) {
  const uint64_t begin = reader_.position().offset;
  while (batch.entries.size() < options_.batch_keys && batch.bytes < options_.batch_bytes &&
         reader_.position().offset - begin < kMaxBytesOfFile) {
    const Result<bool> next = reader_.Next();
    if (!next.ok()) return next.error();
    if (!next.value()) {
      done_ = true;
      const uint64_t left = file_.size() - std::min(file_.size(), reader_.end());
      if (left > 0) {
        return Error{
            ErrorCode::kCorruptData,
            std::to_string(left) + " bytes follow the end of the RDB file at byte " +
                std::to_string(reader_.end()),
            "An append-only file of Redis 4 to 6 may begin with an RDB file; its commands are not read.",
            "Use a file written by SAVE or BGSAVE."};
      }
      return !batch.entries.empty();
    }
    NoteHint(batch);
    const rdb::FileKey& key = reader_.key();
    const bool wanted = HasDatabase(key.db) && options_.share.Contains(key.name);
    const KeyDecision decision = wanted ? filter_.Classify(key.db, key.name) : KeyDecision();
    if (decision.interest == Interest::kIgnore) {
      PRM_RETURN_IF_ERROR(reader_.SkipValue());
      continue;
    }
    Entry entry = NewEntry();
    entry.db = key.db;
    entry.key = key.name;
    entry.route = decision.route;
    entry.expires_at_ms = key.expires_at_ms;
    if (decision.interest == Interest::kNameOnly) {
      entry.state = EntryState::kNameOnly;
      PRM_RETURN_IF_ERROR(reader_.SkipValue());
    } else if (key.expires_at_ms && *key.expires_at_ms <= options_.now_ms) {
      entry.state = EntryState::kExpired;
      PRM_RETURN_IF_ERROR(reader_.SkipValue());
    } else {
      taken_.payload = std::move(entry.payload);
      PRM_RETURN_IF_ERROR(reader_.TakeValue(options_.max_value_bytes, kShortStringLimit - 1, taken_));
      entry.payload = std::move(taken_.payload);
      entry.large = std::move(taken_.large);
      entry.size = taken_.size;
      entry.plain = taken_.plain;
      if (PayloadSize(entry) == 0) {
        entry.state = EntryState::kTooLarge;
      } else if (!entry.plain) {
        // A damaged value is left to its decoder, which rejects it.
        const Result<bool> living = DropExpiredFields(entry, options_.now_ms, file_, options_.make_spool);
        if (living.ok() && !living.value()) entry.state = EntryState::kExpired;
        if (living.ok() && living.value() && IsEmptyCollection(entry)) entry.state = EntryState::kEmpty;
        if (entry.state != EntryState::kRead) DropPayload(entry);
      }
    }
    batch.bytes += entry.key.size() + PayloadSize(entry);
    batch.entries.push_back(std::move(entry));
  }
  return true;
}

// A key takes more than a byte, so a file has fewer keys than bytes, whatever it says.
void RdbFileSource::NoteHint(Batch& batch) {
  if (!reader_.size_hint() || !HasDatabase(reader_.key().db)) return;
  const uint64_t keys = std::min(*reader_.size_hint(), file_.size() - expected_keys_);
  expected_keys_ += keys;
  batch.expected_keys += keys;
}

bool RdbFileSource::HasDatabase(int db) const {
  const auto& databases = options_.databases;
  return !databases || std::find(databases->begin(), databases->end(), db) != databases->end();
}

}  // namespace prm::source
