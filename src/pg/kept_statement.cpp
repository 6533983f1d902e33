#include "pg/kept_statement.h"

#include "pg/identity.h"
#include "pg/memory.h"
#include "pg/spi.h"

namespace prm::pg {

namespace {

CachedPlanSource *SourceOf(SPIPlanPtr plan) {
  return static_cast<CachedPlanSource *>(linitial(SPI_plan_get_plan_sources(plan)));
}

bool IsPlanned(const CachedPlanSource *source) {
  return source->is_valid && source->gplan != nullptr && source->gplan->is_valid;
}

}  // namespace

Rows KeptStatement::Execute(std::initializer_list<SqlParam> params, bool read_only) {
  MakeReady(params);
  return Spi::Execute(plan_, params, read_only);
}

void KeptStatement::ExecuteInto(Tuplestore &rows, std::initializer_list<SqlParam> params) {
  MakeReady(params);
  Spi::ExecuteInto(rows, plan_, params);
}

void KeptStatement::MakeReady(std::initializer_list<SqlParam> params) {
  if (plan_ == nullptr) Prepare(params);
  if (planning_ == Planning::kByIndex) {
    CachedPlanSource *source = SourceOf(plan_);
    if (IsPlanned(source) && source->gplan->generation != by_index_) {
      // A change arrived during Execute, and PostgreSQL made an ordinary plan.
      Forget();
      Prepare(params);
      source = SourceOf(plan_);
    }
    if (!IsPlanned(source)) PlanByIndex();
  }
}

void KeptStatement::Prepare(std::initializer_list<SqlParam> params) {
  std::vector<Oid> types;
  for (const SqlParam &param : params) types.push_back(param.type);
  SPIPlanPtr const plan = Call([&] {
    MemoryContext const context = CurrentMemoryContext;
    SPIPlanPtr prepared = SPI_prepare_cursor(sql_.c_str(), static_cast<int>(types.size()), types.data(),
                                             CURSOR_OPT_GENERIC_PLAN);
    if (prepared != nullptr) SPI_keepplan(prepared);
    MemoryContextSwitchTo(context);  // SPI leaves its own, which lives as long as the connection
    return prepared;
  });
  if (plan == nullptr)
    throw Failure(ERRCODE_INTERNAL_ERROR, std::string("SPI failed: ") + SPI_result_code_string(SPI_result));
  plan_ = plan;
  by_index_ = 0;
}

void KeptStatement::PlanByIndex() {
  LocalSettings settings;
  for (const char *method : {"enable_seqscan", "enable_hashjoin", "enable_mergejoin"})
    settings.Set(method, "off");
  WithoutJit const without_jit;
  Context context("redis_migrate planning");  // for what planning leaves behind
  Call([&] {
    MemoryContext const before = MemoryContextSwitchTo(context.get());
    ReleaseCachedPlan(SPI_plan_get_cached_plan(plan_), CurrentResourceOwner);
    MemoryContextSwitchTo(before);
  });
  by_index_ = SourceOf(plan_)->gplan->generation;
}

void KeptStatement::Forget() {
  // This only frees memory and looks nothing up, so it is safe after an error, too.
  if (plan_ != nullptr) SPI_freeplan(plan_);
  plan_ = nullptr;
}

}  // namespace prm::pg
