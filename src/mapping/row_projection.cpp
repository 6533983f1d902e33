#include "mapping/row_projection.h"

namespace prm {

using pg::Call;

namespace {

// Whether a plan shows redis_batch as a whole: the names of its columns are then those of the range table.
bool ShowsWholeRow(const Scan *scan) {
  Bitmapset *columns = nullptr;
  for (List *expressions : {scan->plan.targetlist, scan->plan.qual})
    pull_varattnos(reinterpret_cast<Node *>(expressions), scan->scanrelid, &columns);
  return bms_is_member(0 - FirstLowInvalidHeapAttributeNumber, columns);
}

}  // namespace

bool RowProjection::Fits(const PlannedStmt *plan) {
  // The executor checks the privileges on relations, also on those that the planner found to be of no use.
  if (!IsA(plan->planTree, NamedTuplestoreScan) || plan->relationOids != NIL || plan->subplans != NIL)
    return false;
  return Call([&] { return !ShowsWholeRow(reinterpret_cast<Scan *>(plan->planTree)); });
}

RowProjection::RowProjection(const PlannedStmt *plan, TupleDesc batch, DestReceiver *receiver)
    : receiver_(receiver) {
  Call([&] {
    state_ = CreateExecutorState();
    MemoryContext const previous = MemoryContextSwitchTo(state_->es_query_cxt);
    context_ = CreateExprContext(state_);
    row_ = MakeSingleTupleTableSlot(batch, &TTSOpsVirtual);
    for (int i = 0; i < batch->natts; ++i) row_->tts_isnull[i] = true;
    context_->ecxt_scantuple = row_;
    condition_ = ExecInitQual(plan->planTree->qual, nullptr);
    List *columns = plan->planTree->targetlist;
    TupleTableSlot *made = MakeSingleTupleTableSlot(ExecTypeFromTL(columns), &TTSOpsVirtual);
    projection_ = ExecBuildProjectionInfo(columns, context_, made, nullptr, batch);
    MemoryContextSwitchTo(previous);
  });
}

void RowProjection::Project() {
  ResetExprContext(context_);
  ExecClearTuple(row_);
  ExecStoreVirtualTuple(row_);
  if (!ExecQual(condition_, context_)) return;
  receiver_->receiveSlot(ExecProject(projection_), receiver_);
}

void RowProjection::Finish() {
  Call([&] {
    ExecDropSingleTupleTableSlot(projection_->pi_state.resultslot);
    ExecDropSingleTupleTableSlot(row_);
    FreeExecutorState(state_);
  });
}

}  // namespace prm
