#include "stream/known_values.h"

#include <charconv>
#include <limits>
#include <utility>

namespace prm::stream {

namespace {

constexpr size_t kMostValueBytes = 1024;
// Memory that a value takes beside its bytes and its name, about.
constexpr size_t kOverhead = 160;

class StringTaker : public rdb::ValueVisitor {
 public:
  void OnString(Bytes value) override { string = value; }
  std::string string;
};

// The number that a string is to INCR: in its shortest form, without anything else (string2ll in Redis).
std::optional<int64_t> NumberOf(Bytes text) {
  int64_t number = 0;
  const char* const end = text.data() + text.size();
  const auto [at, failed] = std::from_chars(text.data(), end, number);
  if (failed != std::errc() || at != end || std::to_string(number) != text) return std::nullopt;
  return number;
}

}  // namespace

void KnownValues::Note(const source::Entry& entry) {
  std::string name = NameOf(entry.db, entry.key);
  if (wants_elements_) elements_.Note(name, entry);
  if (entry.state != source::EntryState::kRead || source::PayloadSize(entry) > kMostValueBytes)
    return ForgetValue(name);
  Value value{true, entry.plain, entry.payload, entry.expires_at_ms};
  if (!entry.plain) {
    const auto type = TypeOf(entry);
    if (!type.ok()) return ForgetValue(name);
    if (type.value() == rdb::ValueType::kString) {
      StringTaker taker;
      // Compressed, it may be larger than it looks.
      if (!Decode(entry, taker).ok() || taker.string.size() > kMostValueBytes) return ForgetValue(name);
      value.plain = true;
      value.payload = std::move(taker.string);
    }
  }
  Keep(std::move(name), std::move(value));
}

void KnownValues::NoteGone(int db, Bytes key) {
  if (wants_elements_) elements_.NoteGone(NameOf(db, key));
  Keep(NameOf(db, key), {});
}

void KnownValues::Forget(int db, Bytes key) { Forget(NameOf(db, key)); }

void KnownValues::Clear() {
  recent_.clear();
  older_.clear();
  recent_bytes_ = 0;
  elements_.Clear();
}

bool KnownValues::Resolve(int db, Bytes key, ElementChanges& changes) {
  const std::string name = NameOf(db, key);
  ForgetValue(name);
  return elements_.Resolve(name, changes);
}

bool KnownValues::Apply(Edit edit, int64_t amount, source::Entry& entry) {
  const std::string name = NameOf(entry.db, entry.key);
  Value* const known = Find(name);
  if (known == nullptr) return false;
  const size_t bytes = known->payload.size();
  const bool is_changed = Change(edit, amount, entry.payload, *known);
  recent_bytes_ += known->payload.size();
  recent_bytes_ -= bytes;
  if (!is_changed) {
    Forget(name);
    return false;
  }
  entry.state = source::EntryState::kRead;
  entry.plain = known->plain;
  entry.payload = known->payload;
  entry.expires_at_ms = known->expires_at_ms;
  if (known->payload.size() > kMostValueBytes) Forget(name);
  return true;
}

bool KnownValues::Change(Edit edit, int64_t amount, Bytes text, Value& value) {
  const bool is_string = !value.is_there || value.plain;
  switch (edit) {
    case Edit::kAdd: {
      const auto number = value.is_there ? NumberOf(value.payload) : 0;
      if (!is_string || !number) return false;
      int64_t sum = 0;
      if (__builtin_add_overflow(*number, amount, &sum)) return false;
      value.payload = std::to_string(sum);
      break;
    }
    case Edit::kAppend:
      if (!is_string) return false;
      value.payload += text;
      break;
    case Edit::kReplace:
      value.payload = text;
      break;
    case Edit::kExpireAt:
      if (!value.is_there) return false;
      value.expires_at_ms = amount;
      return true;
    case Edit::kPersist:
      if (!value.is_there) return false;
      value.expires_at_ms.reset();
      return true;
    case Edit::kNone:
      return false;
  }
  value.is_there = true;
  value.plain = true;
  return true;
}

std::string KnownValues::NameOf(int db, Bytes key) {
  std::string name(reinterpret_cast<const char*>(&db), sizeof db);
  name += key;
  return name;
}

KnownValues::Value* KnownValues::Find(const std::string& name) {
  if (const auto found = recent_.find(name); found != recent_.end()) return &found->second;
  const auto found = older_.find(name);
  if (found == older_.end()) return nullptr;
  Value value = std::move(found->second);
  older_.erase(found);
  Keep(name, std::move(value));
  return &recent_.find(name)->second;
}

void KnownValues::Keep(std::string name, Value value) {
  if (recent_bytes_ + name.size() + value.payload.size() + kOverhead > most_bytes_ / 2) {
    older_ = std::move(recent_);
    recent_.clear();
    recent_bytes_ = 0;
  }
  older_.erase(name);
  const auto [place, is_new] = recent_.try_emplace(std::move(name));
  if (is_new) recent_bytes_ += place->first.size() + kOverhead;
  recent_bytes_ += value.payload.size();
  recent_bytes_ -= place->second.payload.size();
  place->second = std::move(value);
}

void KnownValues::Forget(const std::string& name) {
  elements_.Forget(name);
  ForgetValue(name);
}

void KnownValues::ForgetValue(const std::string& name) {
  older_.erase(name);
  const auto found = recent_.find(name);
  if (found == recent_.end()) return;
  recent_bytes_ -= name.size() + kOverhead + found->second.payload.size();
  recent_.erase(found);
}

}  // namespace prm::stream
