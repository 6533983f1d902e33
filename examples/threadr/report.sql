-- The report of a run, for people. By psql, as the owner of the migration:
--
--   psql -f report.sql                     the last run
--   psql -v run_id=3 -f report.sql         that run

\pset footer off
\pset null ''
\if :{?run_id}
\else
SELECT max(run_id) AS run_id FROM redis_migrate.runs WHERE migration = 'threadr' AND NOT dry_run
\gset
\endif

\echo
\echo Key families
SELECT coalesce(pattern, '(no pattern: archived)') AS "keys like",
       sum(keys) FILTER (WHERE outcome = 'read') AS read,
       coalesce(sum(keys) FILTER (WHERE outcome IN ('migrated', 'archived')), 0) AS migrated,
       coalesce(sum(keys) FILTER (WHERE outcome = 'rejected'), 0) AS rejected,
       coalesce(sum(keys) FILTER (WHERE outcome = 'skipped'), 0) AS skipped,
       coalesce(sum(keys) FILTER (WHERE outcome = 'vanished'), 0) AS vanished
FROM redis_migrate.run_counts
WHERE run_id = :run_id
GROUP BY pattern
ORDER BY pattern COLLATE "C";

\echo Rejected keys: none was stored; their payloads are in redis_migrate.rejects
SELECT coalesce(key, 'bytes ' || encode(key_bytes, 'escape')) AS key, rule, left(message, 90) AS message
FROM redis_migrate.rejects
WHERE run_id = :run_id
ORDER BY reject_id;

\echo Skipped keys, by reason
SELECT pattern AS "keys like", reason, keys
FROM redis_migrate.run_counts
WHERE run_id = :run_id AND outcome = 'skipped'
ORDER BY pattern COLLATE "C", reason;

\echo Money: premium grants and subscriptions
SELECT outcome, coalesce(reason, '') AS reason, sum(keys) AS keys
FROM redis_migrate.run_counts
WHERE run_id = :run_id
  AND pattern IN ('threadr:premium:ip:{ip}', 'threadr:premium:email:{email}', 'threadr:subscription:user:{subscriber}')
GROUP BY outcome, reason
ORDER BY outcome = 'read' DESC, outcome COLLATE "C", reason COLLATE "C";

\echo Rows in the targets, and what became of the rows that this run made
SELECT string_agg(format('SELECT %L AS "table", count(*) AS rows, %s AS inserted, %s AS updated, %s AS unchanged, %s AS deleted FROM %s',
                         target, inserted, updated, unchanged, deleted, target),
                  ' UNION ALL ' ORDER BY target COLLATE "C") || ' ORDER BY 1'
FROM (SELECT target, coalesce(sum(inserted), 0) AS inserted, coalesce(sum(updated), 0) AS updated,
             coalesce(sum(unchanged), 0) AS unchanged, coalesce(sum(deleted), 0) AS deleted
      FROM redis_migrate.mappings AS m
      LEFT JOIN redis_migrate.mapping_counts AS c ON c.migration = m.migration AND c.mapping = m.mapping AND c.run_id = :run_id
      WHERE m.migration = 'threadr'
      GROUP BY target) AS targets
\gexec

\echo Accounts: every key that was read has one outcome
SELECT format('%s read = %s migrated + %s archived + %s rejected + %s skipped + %s vanished', read, migrated, archived, rejected,
              skipped, vanished) AS "sum",
       CASE WHEN balanced THEN 'adds up' ELSE 'DOES NOT ADD UP' END AS verdict, state,
       extract(epoch FROM active_time)::numeric(12, 2) AS seconds,
       round(read / nullif(extract(epoch FROM active_time), 0)) AS "keys/s"
FROM redis_migrate.runs
WHERE run_id = :run_id;
