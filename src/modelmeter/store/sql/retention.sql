-- name: retired
-- Since when each resolution of each class is whole. A table of a few rows.
SELECT class, resolution, until FROM modelmeter.retired;

-- name: retire
-- Move the borders on, never back, unless a correction that is not applied yet may need what lies before them.
INSERT INTO modelmeter.retired AS r (class, resolution, until)
SELECT c, k, u FROM unnest(%s::smallint[], %s::text[], %s::timestamptz[]) AS new (c, k, u)
WHERE NOT EXISTS (SELECT FROM modelmeter.correction WHERE applied_at IS NULL)
ON CONFLICT (class, resolution) DO UPDATE SET until = excluded.until WHERE r.until < excluded.until;

-- name: classes
-- The classes of retention. A table of a few rows.
SELECT class, name, keep FROM modelmeter.retention_class ORDER BY class;

-- name: add_class
-- A class that is new, with the next number.
INSERT INTO modelmeter.retention_class (class, name, keep)
SELECT coalesce(max(class), 0) + 1, %(name)s, %(keep)s::jsonb FROM modelmeter.retention_class
ON CONFLICT (name) DO NOTHING;

-- name: change_class
-- The spans of a class, as the settings have them now.
UPDATE modelmeter.retention_class SET keep = %(keep)s::jsonb WHERE name = %(name)s AND keep <> %(keep)s::jsonb;

-- name: is_distributed
-- Whether Citus spreads the chunks. NULL: there is no Citus.
SELECT to_regclass('pg_catalog.pg_dist_partition') IS NOT NULL;

-- name: count_distributed
-- Whether the chunks are among what Citus spreads.
SELECT count(*) FROM pg_catalog.pg_dist_partition WHERE logicalrelid = 'modelmeter.chunk'::regclass;

-- name: partitions
-- Every partition by time, its leaves by class, and what was detached and not dropped: name, whether it has leaves, of
-- what it is a part, whether a detachment broke off.
SELECT c.relname, c.relkind = 'p', p.relname, coalesce(i.inhdetachpending, false)
FROM pg_class c
LEFT JOIN pg_inherits i ON i.inhrelid = c.oid
LEFT JOIN pg_class p ON p.oid = i.inhparent
WHERE c.relnamespace = 'modelmeter'::regnamespace AND c.relkind IN ('r', 'p')
    AND c.relname ~ '^(chunk|rollup_1[mhd])_\d{8}(_c\d+)?$'
ORDER BY c.relname;

-- name: months_without_partition
-- The months of what lies in the default partition of the history of alerts. Index: alert_history_default's on (at).
SELECT DISTINCT date_trunc('month', at, 'UTC') FROM modelmeter.alert_history_default;

-- name: months
-- The partitions of the history of alerts.
SELECT relname FROM pg_class WHERE relnamespace = 'modelmeter'::regnamespace AND relname ~ '^alert_history_\d{6}$'
ORDER BY relname;
