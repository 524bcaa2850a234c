-- name: list
-- All baselines, by name, with their events. Index: baseline_pkey, baseline_rollup_pkey.
SELECT b.name, b.match, b.start_at, b.end_at, b.created_at, b.created_by, r.count
FROM modelmeter.baseline b JOIN modelmeter.baseline_rollup r ON r.baseline = b.name AND r.metric_id = 0
ORDER BY b.name;

-- name: find
-- One of them. Index: baseline_pkey, baseline_rollup_pkey.
SELECT b.name, b.match, b.start_at, b.end_at, b.created_at, b.created_by, r.count
FROM modelmeter.baseline b JOIN modelmeter.baseline_rollup r ON r.baseline = b.name AND r.metric_id = 0
WHERE b.name = %s;

-- name: names
-- For «did you mean». Index: baseline_pkey.
SELECT name FROM modelmeter.baseline ORDER BY name;

-- name: rollups
-- What is kept of one, or of some metrics of it. Index: baseline_rollup_pkey.
SELECT metric_id, count, sum, deviation, min, max, first_at, last_at, last, sketch FROM modelmeter.baseline_rollup
WHERE baseline = %(name)s AND (%(metrics)s::int[] IS NULL OR metric_id = ANY(%(metrics)s::int[]))
ORDER BY metric_id;

-- name: lock
-- Puts take turns, so that the limit holds.
SELECT pg_advisory_xact_lock(%s);

-- name: count_others
-- How many there are beside one. Index: baseline_pkey.
SELECT count(*) FROM modelmeter.baseline WHERE name <> %s;

-- name: drop
-- One, and what is kept of it. Index: baseline_pkey, baseline_rollup_pkey.
DELETE FROM modelmeter.baseline WHERE name = %s;

-- name: put
-- A new one; the old one of that name is gone by then. Index: baseline_pkey.
INSERT INTO modelmeter.baseline (name, match, start_at, end_at, created_at, created_by)
VALUES (%(name)s, %(match)s, %(start)s, %(end)s, %(created_at)s, %(created_by)s);

-- name: put_rollup
-- What is kept of it, one metric. Index: baseline_rollup_pkey.
INSERT INTO modelmeter.baseline_rollup
    (baseline, metric_id, count, sum, deviation, min, max, first_at, last_at, last, sketch)
VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s);
