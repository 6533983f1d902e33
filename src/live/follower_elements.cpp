// Changes of single elements, which are stored without reading the others of their key again.
#include "live/follower.h"
#include "pg/spi.h"

namespace prm {

using stream::ChangeKind;

namespace {

constexpr int64 kMovedPauseMs = 50;

}  // namespace

// Adds a change of elements to what the batch does to a key. False: the key is to be read again.
bool Follower::TakeElements(const KeyId &id, stream::StreamChange &change, uint64_t route, Batch &batch) {
  stream::ElementChanges &elements = *change.elements;
  auto const found = batch.keys.find(id);
  // No row shows that the key expires at another time.
  bool const is_nothing = !elements.type;
  rdb::ValueType const type = elements.type.value_or(rdb::ValueType::kHash);
  bool const takes = is_nothing ? store_.TakesOnlyElements(route) : store_.TakesElements(route, type);
  // Its earlier elements were not stored, either.
  if (!takes || rejected_.count(id) > 0) return false;
  KeyChange *known = found != batch.keys.end() ? &found->second : nullptr;
  bool const is_new = known == nullptr;
  // If what the batch has is rejected, the reject has its expiry.
  if (is_nothing) return is_new || known->kind != ChangeKind::kSet || known->elements;
  bool const was_deleted = !is_new && known->kind == ChangeKind::kDelete;
  if (!is_new && !was_deleted && !known->elements) return false;
  if (!known_.Resolve(id.first, id.second, elements)) return false;
  if (elements.elements.empty()) return true;
  batch.bytes += elements.size;
  if (is_new || was_deleted) {
    known = &batch.keys[id];
    *known = {};
    known->kind = ChangeKind::kSet;
    known->entry = std::move(change.entry);
    known->entry.route = route;
    known->elements = std::move(elements);
    known->is_whole = was_deleted;
  } else if (stream::Merge(std::move(elements), *known->elements)) {
    known->entry.changed = change.entry.changed;
  } else {
    return false;
  }
  known->offset = change.offset;
  return true;
}

// Makes entries of changes of elements.
void Follower::FinishElements(Batch &batch) {
  for (auto &[id, change] : batch.keys) {
    if (!change.elements) continue;
    source::Entry &entry = change.entry;
    bool const has_states = change.elements->HasStates();
    entry.plain = change.is_whole && !has_states;
    if (entry.plain) {
      change.kind = ChangeKind::kDelete;
    } else {
      entry.is_part = !change.is_whole;
      if (has_states) entry.payload = stream::EncodeStates(*change.elements);
      if (entry.is_part && change.elements->HasGone())
        entry.gone_elements = stream::EncodeGone(*change.elements);
      entry.first_position = stream::FirstPosition(*change.elements, false);
      entry.first_gone = stream::FirstPosition(*change.elements, true);
    }
    change.elements.reset();
  }
}

// Throws PartsRefused if elements were refused: a key is stored whole or not at all, and rejected with its
// whole value.
void Follower::RequireWholeParts(const Tally &tally) const {
  PartsRefused refused;
  for (const Reject &reject : tally.rejects)
    if (reject.entry->is_part)
      refused.parts.push_back({{reject.entry->db, reject.entry->key}, reject.rule == "no_row"});
  if (!refused.parts.empty()) throw refused;
}

void Follower::ReadWhole(const PartsRefused &refused, Batch &batch) {
  std::vector<KeyChange *> changes;
  std::set<KeyId> keys;
  for (const PartsRefused::Part &part : refused.parts) {
    KeyChange &change = batch.keys.at(part.key);
    // Then it is asked more often than needed whether a key has no row at all.
    if (part.is_always) store_.LeaveElements(change.entry.route);
    if (!keys.insert(part.key).second) continue;
    change.kind = ChangeKind::kChanged;
    change.entry.is_part = false;
    change.entry.gone_elements.clear();
    changes.push_back(&change);
  }
  try {
    ReadAgain(changes, batch);
  } catch (const SlotsMoved &) {  // the next batch finds out whose they are
    named_.reset();
    connection_.reset();
    for (KeyChange *change : changes)
      if (change->kind == ChangeKind::kChanged)
        Wait(*change, KeyAhead::kAgain, change->offset, change->tries, kMovedPauseMs);
  }
}

}  // namespace prm
