// Which live run of a migration is under way.
#pragma once

// SQL, to stand between other literals: the run_id of that of migration $1; NULL: there is none.
#define PRM_LIVE_RUN                                            \
  "(SELECT max(run_id) FROM redis_migrate.run WHERE migration " \
  "= $1 AND live AND state = 'running')"
