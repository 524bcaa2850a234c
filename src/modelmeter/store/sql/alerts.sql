-- name: clock
-- The time that all keepers agree on.
SELECT clock_timestamp();

-- name: evaluations
-- Until when each group has been evaluated. Index: rule_evaluation_pkey.
SELECT group_name, evaluated_at FROM modelmeter.rule_evaluation;

-- name: alerts_of
-- The alerts of some groups. Index: alert_pkey.
SELECT group_name, rule_name, labels, annotations, value, reason, active_at, fired_at, kept_since_at
FROM modelmeter.alert WHERE group_name = ANY(%s::text[]);

-- name: begin_groups
-- Groups that are evaluated for the first time; those that somebody else has begun do not come back.
INSERT INTO modelmeter.rule_evaluation (group_name, evaluated_at)
SELECT name, %(at)s FROM unnest(%(groups)s::text[]) AS name ORDER BY name
ON CONFLICT (group_name) DO NOTHING RETURNING group_name;

-- name: advance_groups
-- Groups go on from where they were read; those that somebody else has moved do not come back.
-- Index: rule_evaluation_pkey.
UPDATE modelmeter.rule_evaluation AS known SET evaluated_at = %(at)s
FROM unnest(%(groups)s::text[], %(read)s::timestamptz[]) AS moved (name, evaluated_at)
WHERE known.group_name = moved.name AND known.evaluated_at = moved.evaluated_at
RETURNING known.group_name;

-- name: end_group
-- A group that is no longer there, if nobody has moved it. Index: rule_evaluation_pkey.
DELETE FROM modelmeter.rule_evaluation WHERE group_name = %s AND evaluated_at = %s RETURNING group_name;

-- name: lock_group
-- Hold a group still while something else changes its alerts. Index: rule_evaluation_pkey.
SELECT evaluated_at FROM modelmeter.rule_evaluation WHERE group_name = %s FOR UPDATE;

-- name: put_alerts
-- Alerts as they are now. Index: alert_pkey.
INSERT INTO modelmeter.alert (group_name, rule_name, fingerprint, labels, annotations, state, value, reason,
    active_at, fired_at, kept_since_at, evaluated_at)
SELECT group_name, rule_name, fingerprint, labels, annotations, state, value::double precision, reason,
    active_at, fired_at, kept_since_at, %(at)s
FROM jsonb_to_recordset(%(alerts)s::jsonb) AS new (group_name text, rule_name text, fingerprint uuid, labels jsonb,
    annotations jsonb, state text, value text, reason text, active_at timestamptz, fired_at timestamptz,
    kept_since_at timestamptz)
ON CONFLICT (group_name, rule_name, fingerprint) DO UPDATE SET annotations = excluded.annotations,
    state = excluded.state, value = excluded.value, reason = excluded.reason, active_at = excluded.active_at,
    fired_at = excluded.fired_at, kept_since_at = excluded.kept_since_at, evaluated_at = excluded.evaluated_at;

-- name: drop_alerts
-- Alerts that have become inactive. Index: alert_pkey.
DELETE FROM modelmeter.alert AS old
USING jsonb_to_recordset(%s::jsonb) AS gone (group_name text, rule_name text, fingerprint uuid)
WHERE old.group_name = gone.group_name AND old.rule_name = gone.rule_name AND old.fingerprint = gone.fingerprint;

-- name: write_transitions
-- Each transition into the history, and the ones to and from firing into the outbox, in one statement.
WITH changed AS (
    SELECT * FROM jsonb_to_recordset(%(transitions)s::jsonb) AS new (group_name text, rule_name text,
        fingerprint uuid, labels jsonb, annotations jsonb, from_state text, to_state text, reason text, value text,
        starts_at timestamptz)
), written AS (
    INSERT INTO modelmeter.alert_history (at, group_name, rule_name, fingerprint, labels, from_state, to_state,
        reason, value)
    SELECT %(at)s, group_name, rule_name, fingerprint, labels, from_state, to_state, reason, value::double precision
    FROM changed ORDER BY group_name, rule_name, fingerprint
    RETURNING transition_id, at, group_name, rule_name, fingerprint, to_state
)
INSERT INTO modelmeter.notification (transition_id, at, status, fingerprint, labels, annotations, value, reason,
    starts_at, ends_at)
SELECT transition_id, at, CASE to_state WHEN 'firing' THEN 'firing' ELSE 'resolved' END, fingerprint, labels,
    annotations, value::double precision, reason, starts_at, CASE to_state WHEN 'firing' THEN NULL ELSE at END
FROM written JOIN changed USING (group_name, rule_name, fingerprint, to_state)
WHERE to_state = 'firing' OR from_state = 'firing';

-- name: put_loaded
-- The groups in use.
INSERT INTO modelmeter.loaded_group (name, position, origin, interval_seconds, rule_limit, rules)
SELECT name, position, origin, interval_seconds, rule_limit, rules
FROM jsonb_to_recordset(%s::jsonb) AS new (name text, position integer, origin text,
    interval_seconds double precision, rule_limit integer, rules jsonb)
ON CONFLICT (name) DO UPDATE SET position = excluded.position, origin = excluded.origin,
    interval_seconds = excluded.interval_seconds, rule_limit = excluded.rule_limit, rules = excluded.rules,
    loaded_at = now(), rule_seconds = '{}', rule_errors = '{}'
WHERE (loaded_group.position, loaded_group.origin, loaded_group.interval_seconds, loaded_group.rule_limit,
    loaded_group.rules) IS DISTINCT FROM (excluded.position, excluded.origin, excluded.interval_seconds,
    excluded.rule_limit, excluded.rules);

-- name: drop_loaded
-- The groups that are in use no longer.
DELETE FROM modelmeter.loaded_group WHERE NOT name = ANY(%s::text[]);

-- name: report_groups
-- How an evaluation went. Index: loaded_group_pkey.
UPDATE modelmeter.loaded_group AS known SET evaluated_at = %(at)s, evaluation_seconds = new.evaluation_seconds,
    rule_seconds = ARRAY(SELECT jsonb_array_elements_text(new.rule_seconds)::double precision),
    rule_errors = ARRAY(SELECT jsonb_array_elements_text(new.rule_errors))
FROM jsonb_to_recordset(%(reports)s::jsonb) AS new (name text, evaluation_seconds double precision,
    rule_seconds jsonb, rule_errors jsonb)
WHERE known.name = new.name;

-- name: loaded
-- All groups in use, in order.
SELECT name, origin, interval_seconds, rule_limit, rules, evaluated_at, evaluation_seconds, rule_seconds, rule_errors
FROM modelmeter.loaded_group ORDER BY position, name;

-- name: alerts
-- All that are pending or firing.
SELECT group_name, rule_name, fingerprint, labels, annotations, state, value, reason, active_at, fired_at,
    kept_since_at, evaluated_at
FROM modelmeter.alert ORDER BY group_name, rule_name, active_at, fingerprint;

-- name: history
-- Transitions of a span, newest first, from a place on. Index: alert_history_at.
SELECT transition_id, at, group_name, rule_name, fingerprint, labels, from_state, to_state, reason, value
FROM modelmeter.alert_history
WHERE at >= %(start)s AND at < %(end)s AND (%(rule)s::text IS NULL OR rule_name = %(rule)s)
    AND (%(group)s::text IS NULL OR group_name = %(group)s) AND (%(state)s::text IS NULL OR to_state = %(state)s)
    AND (%(before_at)s::timestamptz IS NULL OR (at, transition_id) < (%(before_at)s, %(before_id)s::bigint))
ORDER BY at DESC, transition_id DESC LIMIT %(limit)s;

-- name: stored_groups
-- The groups that came over HTTP.
SELECT name, content, updated_at, updated_by FROM modelmeter.rule_group ORDER BY name;

-- name: stored_mark
-- Changes when any of them does.
SELECT count(*), max(updated_at), coalesce(sum(hashtext(content)::bigint), 0) FROM modelmeter.rule_group;

-- name: put_group
-- Make or change one; whether it was made.
INSERT INTO modelmeter.rule_group (name, content, updated_by) VALUES (%(name)s, %(content)s, %(by)s)
ON CONFLICT (name) DO UPDATE SET content = excluded.content, updated_by = excluded.updated_by, updated_at = now()
RETURNING xmax = 0;

-- name: count_groups
-- How many there are.
SELECT count(*) FROM modelmeter.rule_group;

-- name: drop_group
-- One, if it is there.
DELETE FROM modelmeter.rule_group WHERE name = %s RETURNING name;

-- name: origin_of
-- Where a group in use comes from. Index: loaded_group_pkey.
SELECT origin FROM modelmeter.loaded_group WHERE name = %s;

-- name: versions
-- The versions of each model, in the order of their first events; new ones, not yet compacted, as they came.
SELECT name, array_agg(version ORDER BY since, born) FROM (
    SELECT name, version, min(coalesce(first_at, now())) AS since, min(stream_id) AS born FROM modelmeter.stream GROUP BY name, version
) AS known GROUP BY name;

-- name: baselines
-- Which events baselines name. Index: baseline_pkey.
SELECT name, match, start_at, end_at FROM modelmeter.baseline;
