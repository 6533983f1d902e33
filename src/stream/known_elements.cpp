#include "stream/known_elements.h"

#include <algorithm>
#include <utility>

namespace prm::stream {

namespace {

// Memory that a key takes beside its name and its elements, about, and that a stream's first entry takes.
constexpr size_t kOverhead = 160;
constexpr size_t kStreamOverhead = 720;
// The share of the memory that one key may take.
constexpr size_t kShare = 8;

class IdsTaker : public rdb::ValueVisitor {
 public:
  explicit IdsTaker(size_t most) : most_(most) {}
  void OnStreamEntry(rdb::StreamId id, const rdb::StreamFields&) override {
    if (++length <= most_) ids.push_back(id);
  }
  void OnListElement(Bytes) override { ++length; }
  std::deque<rdb::StreamId> ids;
  uint64_t length = 0;

 private:
  size_t most_;
};

bool IsBefore(const rdb::StreamId& one, const rdb::StreamId& other) {
  return one.ms != other.ms ? one.ms < other.ms : one.seq < other.seq;
}

}  // namespace

void KnownElements::Note(const std::string& name, const source::Entry& entry) {
  Forget(name);
  if (entry.state != source::EntryState::kRead || entry.plain) return;
  const auto type = TypeOf(entry);
  if (!type.ok() || (type.value() != rdb::ValueType::kStream && type.value() != rdb::ValueType::kList))
    return;
  const size_t most = most_bytes_ / kShare / sizeof(rdb::StreamId);
  IdsTaker taker(most);
  if (!Decode(entry, taker).ok()) return;
  Elements elements;
  if (type.value() == rdb::ValueType::kList) {
    elements.length = taker.length;
  } else {
    if (taker.length > most) return;
    elements.ids = std::make_unique<std::deque<rdb::StreamId>>(std::move(taker.ids));
  }
  Keep(name, std::move(elements));
}

void KnownElements::NoteGone(const std::string& name) { Keep(name, {}); }

void KnownElements::Forget(const std::string& name) {
  older_.erase(name);
  const auto found = recent_.find(name);
  if (found == recent_.end()) return;
  recent_bytes_ -= found->second.bytes;
  recent_.erase(found);
}

void KnownElements::Clear() {
  recent_.clear();
  older_.clear();
  recent_bytes_ = 0;
}

bool KnownElements::Resolve(const std::string& name, ElementChanges& changes) {
  const bool is_list = changes.type == rdb::ValueType::kList;
  if (!is_list && changes.type != rdb::ValueType::kStream) return true;
  Elements* const known = Find(name);
  if (known == nullptr) return !changes.ends.IsNeeded();
  // A key that became one of another type was told; an empty one may become either.
  const bool is_other = is_list ? known->stream_length() > 0 : known->length > 0;
  if (is_other || !(is_list ? ResolveList(changes, *known) : ResolveStream(changes, *known))) {
    Forget(name);
    return !is_other && !changes.ends.IsNeeded();
  }
  changes.ends = {};
  if (known->stream_length() > most_bytes_ / kShare / sizeof(rdb::StreamId))
    Forget(name);
  else
    Count(name, *known);
  return true;
}

// False: what was known cannot be right.
bool KnownElements::ResolveStream(ElementChanges& changes, Elements& elements) {
  if (!elements.ids) elements.ids = std::make_unique<std::deque<rdb::StreamId>>();
  std::deque<rdb::StreamId>& ids = *elements.ids;
  for (const auto& [id_name, state] : changes.elements) {
    const rdb::StreamId id = IdOfElement(id_name);
    if (state) {
      if (!ids.empty() && !IsBefore(ids.back(), id)) return false;
      ids.push_back(id);
    } else if (const auto found = std::lower_bound(ids.begin(), ids.end(), id, IsBefore);
               found != ids.end() && !IsBefore(id, *found)) {
      ids.erase(found);
    }
  }
  const auto is_cut = [&] {
    return !ids.empty() && ((changes.ends.newest && ids.size() > *changes.ends.newest) ||
                            (changes.ends.from && IsBefore(ids.front(), *changes.ends.from)));
  };
  for (; is_cut(); ids.pop_front()) {
    const std::string id_name = NameOfElement(ids.front());
    changes.size += id_name.size();
    changes.elements.insert_or_assign(id_name, std::nullopt);
  }
  return true;
}

bool KnownElements::ResolveList(ElementChanges& changes, Elements& elements) {
  if (changes.ends.popped > 0 && elements.length == 0) return false;
  for (uint64_t i = 0; i < changes.ends.popped && elements.length > 0; ++i)
    changes.elements.insert_or_assign(NameOfElement(--elements.length), std::nullopt);
  for (std::string& value : changes.ends.pushed) {
    ElementState state;
    state.value = std::move(value);
    changes.elements.insert_or_assign(NameOfElement(elements.length++), std::move(state));
  }
  return true;
}

KnownElements::Elements* KnownElements::Find(const std::string& name) {
  if (const auto found = recent_.find(name); found != recent_.end()) return &found->second;
  const auto found = older_.find(name);
  if (found == older_.end()) return nullptr;
  Elements elements = std::move(found->second);
  older_.erase(found);
  Keep(name, std::move(elements));
  return &recent_.find(name)->second;
}

void KnownElements::Keep(std::string name, Elements elements) {
  if (recent_bytes_ > most_bytes_ / 2) {
    older_ = std::move(recent_);
    recent_.clear();
    recent_bytes_ = 0;
  }
  older_.erase(name);
  Elements& kept = recent_[name];
  elements.bytes = kept.bytes;
  kept = std::move(elements);
  Count(name, kept);
}

void KnownElements::Count(const std::string& name, Elements& elements) {
  recent_bytes_ -= elements.bytes;
  elements.bytes = name.size() + kOverhead;
  if (elements.ids) elements.bytes += kStreamOverhead + elements.ids->size() * sizeof(rdb::StreamId);
  recent_bytes_ += elements.bytes;
}

}  // namespace prm::stream
