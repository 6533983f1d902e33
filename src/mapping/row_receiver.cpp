#include "mapping/row_receiver.h"

#include <climits>

namespace prm {

namespace {

void Ignore(DestReceiver *) {}
void IgnoreStart(DestReceiver *, int, TupleDesc) {}

}  // namespace

RowReceiver::RowReceiver(TupleDesc desc, size_t entries, QueryRows &result)
    : entries_(entries), result_(result) {
  state_.base = {Receive, IgnoreStart, Ignore, Ignore, DestNone};
  state_.store = result.rows.get();
  state_.desc = desc;
  pg::Call([&] {
    state_.values = static_cast<Datum *>(palloc(sizeof(Datum) * desc->natts));
    state_.nulls = static_cast<bool *>(palloc0(sizeof(bool) * desc->natts));
    state_.entries = static_cast<int *>(palloc(sizeof(int) * QueryRows::kAtOnce));
    state_.yielded = static_cast<bool *>(palloc0(sizeof(bool) * entries));
  });
}

bool RowReceiver::Receive(TupleTableSlot *slot, DestReceiver *self) {
  auto *receiver = reinterpret_cast<State *>(self);
  slot_getallattrs(slot);
  // The numbers are those of redis_row.
  if (receiver->count == INT_MAX)
    ereport(ERROR, (errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED), errmsg("the query returned too many rows")));
  int const entry = DatumGetInt32(slot->tts_values[0]);
  receiver->yielded[entry] = true;
  if (receiver->count < QueryRows::kAtOnce) receiver->entries[receiver->count] = entry;
  receiver->values[0] = Int32GetDatum(receiver->count++);
  for (int i = 1; i < receiver->desc->natts; ++i) {
    receiver->values[i] = slot->tts_values[i - 1];
    receiver->nulls[i] = slot->tts_isnull[i - 1];
  }
  tuplestore_putvalues(receiver->store, receiver->desc, receiver->values, receiver->nulls);
  return true;
}

void RowReceiver::Finish() {
  if (state_.count <= QueryRows::kAtOnce)
    result_.entry_of_row.assign(state_.entries, state_.entries + state_.count);
  result_.yielded.assign(state_.yielded, state_.yielded + entries_);
  for (void *memory : {static_cast<void *>(state_.yielded), static_cast<void *>(state_.entries),
                       static_cast<void *>(state_.values), static_cast<void *>(state_.nulls)})
    pfree(memory);
}

}  // namespace prm
