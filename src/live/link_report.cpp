#include "live/link_report.h"

#include "pg/background.h"
#include "pg/identity.h"
#include "pg/memory.h"
#include "pg/spi.h"
#include "pg/transaction.h"

namespace prm {

// The context of a procedure is never reset.

void LinkReport::Note(LinkStatus &status) {
  pg::Context context("redis_migrate link");
  pg::SwitchContext in_context(context.get());
  pg::SetForTransaction("synchronous_commit", "off");
  record_.WriteLink(status);
  pg::Spi::Commit();
  status.reconnects = 0;
}

bool LinkReport::IsWanted() {
  pg::Context context("redis_migrate link");
  pg::SwitchContext in_context(context.get());
  pg::ReloadIfAsked();
  bool const is_wanted = workers_->IsWanted(migration_) && !record_.IsSuperseded();
  pg::Spi::Commit();
  return is_wanted;
}

}  // namespace prm
