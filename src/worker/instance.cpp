#include "worker/instance.h"

#include "pg/identity.h"
#include "pg/instance.h"
#include "pg/spi.h"

namespace prm::worker {

using pg::Spi;
using pg::SqlParam;

bool IsOfThisInstance(const Job &job) {
  std::string const here = pg::ThisInstance();
  pg::AsExtensionOwner as_owner;
  return Spi::Execute(
             R"sql(UPDATE redis_migrate.background_run
                   SET instance = $2
                   WHERE background_run_id = $1 AND (instance IS NULL OR instance = $2))sql",
             {SqlParam::Int8(job.id), SqlParam::Text(here)})
             .processed() > 0;
}

}  // namespace prm::worker
