// The pg_redis_migrate.* settings.
#pragma once

namespace prm::pg::settings {

extern int batch_rows;                // keys per batch and transaction
extern int batch_size_kb;             // keys and payloads per batch, in kB
extern int bytes_in_flight_kb;        // replies asked for and not yet read, in kB
extern int max_reply_size_kb;         // a larger value is read in pieces, in kB
extern int max_value_size_kb;         // a larger value is rejected by name, in kB
extern int max_snapshot_size_mb;      // a larger snapshot of a server is refused, in MB; -1: no limit
extern int max_spool_size_mb;         // as much of a stream waits on the disk, in MB
extern int live_reread_share;         // percent of a server's time for reading keys again
extern int live_large_value_rate_kb;  // large values that are read again in a second, in kB
extern int live_delete_limit;         // percent of a mapping's rows that a snapshot may take away unasked
extern int connect_timeout_ms;        // for servers without the option
extern int command_timeout_ms;        // time to wait for data from Redis before a command fails
extern int reconnect_timeout_ms;      // how long a run tries to restore a lost connection
extern int max_workers;               // background workers at a time, apart from launcher and schedulers
extern char *databases;               // names of databases whose work is resumed and scheduled
extern int history_retention_s;       // how long the history of sweeps and refreshes is kept, in seconds
extern int max_outbox_rows;           // changes that wait for the reverse feed
extern int journal_retention_s;       // how long what runs inserted is kept, in seconds
extern int rate_limit_memory_kb;      // shared memory for rate limits, in kB; fixed while the server runs
extern int progress_interval_s;       // a run tells its client so often how far it is, in seconds; 0: never
extern int prune_limit;               // percent of a mapping's rows that a run removes unasked
extern int rate_limit_save_interval_ms;  // interval between saves of that memory; 0: only at shutdown
extern int max_policies_per_role;        // lockout policies, and rate limits, of a role in a database

// Sizes of shared memory; defined only where the library is preloaded.
extern int lockout_memory_kb;   // counters of lockouts, in kB
extern int attempt_queue_size;  // login attempts that wait to be written

// Defines them; called once, from _PG_init.
void Define();

}  // namespace prm::pg::settings
