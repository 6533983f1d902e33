-- How long journals, audits, rejects and archives are kept: expiry policies on our own tables.

CREATE FUNCTION redis_migrate.set_retention(kind text, keep interval) RETURNS void
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    -- Of no undo that has begun, and of no run that is under way.
    unused constant text := 'NOT EXISTS (SELECT FROM redis_migrate.undo AS u WHERE u.run_id = target.run_id AND u.state = ''running'') '
        'AND NOT EXISTS (SELECT FROM redis_migrate.run AS r WHERE r.run_id = target.run_id AND r.state = ''running'' AND NOT r.live)';
    policy record;
BEGIN
    IF kind IS NULL OR kind NOT IN ('journal', 'audits', 'rejects', 'archive') THEN
        RAISE EXCEPTION 'kind must be journal, audits, rejects or archive' USING ERRCODE = 'invalid_parameter_value';
    END IF;
    -- Months of 30 days, as in all comparisons of intervals, would make 100 years shorter.
    IF extract(epoch FROM keep) NOT BETWEEN 0 AND extract(epoch FROM '100 years'::interval) THEN
        RAISE EXCEPTION 'keep must be between 0 and 100 years' USING ERRCODE = 'invalid_parameter_value',
            HINT = 'NULL keeps them until somebody drops them.';
    END IF;
    FOR policy IN
        SELECT p.relation, p.expires_column, p.condition
        FROM (VALUES
            ('journal', 'redis_migrate.journal', 'recorded_at', unused),
            ('journal', 'redis_migrate.journal_value', 'recorded_at', unused),
            ('journal', 'redis_migrate.journal_insert', 'recorded_at', unused),
            ('journal', 'redis_migrate.ledger_batch', 'appended_at', 'target.merged AND ' || unused),
            ('audits', 'redis_migrate.audit', 'updated_at', 'target.state <> ''running'' OR target.updated_at < now() - interval ''1 day'''),
            -- Settled, or of a run whose place another has taken: verifications and cutovers look at the last.
            ('rejects', 'redis_migrate.reject', 'created_at',
             'target.settled_at IS NOT NULL OR EXISTS (SELECT FROM redis_migrate.run AS r JOIN redis_migrate.run AS later USING (migration) '
             'WHERE r.run_id = target.run_id AND r.state <> ''running'' AND later.run_id > r.run_id AND later.state = ''completed'' AND NOT later.dry_run)'),
            -- Of a key without an expiry nothing is ever old.
            ('archive', 'redis_migrate.archived_key', 'expires_at',
             'NOT EXISTS (SELECT FROM redis_migrate.run AS r WHERE r.migration = target.migration AND r.state = ''running'' AND NOT r.live)')
        ) AS p (kind, relation, expires_column, condition)
        WHERE p.kind = set_retention.kind
    LOOP
        IF EXISTS (SELECT FROM redis_migrate.expiry_policies AS p WHERE p.target = policy.relation) THEN
            PERFORM redis_migrate.drop_expiry(policy.relation);
        END IF;
        IF keep IS NOT NULL THEN
            PERFORM redis_migrate.add_expiry(policy.relation::regclass, policy.expires_column, every => '1 hour', lifetime => keep,
                condition => policy.condition);
        END IF;
    END LOOP;
END
$$;
COMMENT ON FUNCTION redis_migrate.set_retention(text, interval) IS
    'Says how long the journal, audits, rejects or archive (kind) of all migrations are kept; NULL: until somebody drops them. Adds expiry policies to the tables of the extension, so only its owner may call it. What an undo, a run or a verification still needs stays';
