-- name: transitions
-- The changes of alerts in a span, of one model or of all, in order. Index: alert_history_at.
SELECT at, group_name, rule_name, fingerprint::text, labels, from_state, to_state, reason, value
FROM modelmeter.alert_history
WHERE at >= %(start)s AND at < %(end)s AND (%(name)s::text IS NULL OR labels ->> 'name' = %(name)s)
ORDER BY at, transition_id LIMIT 20000;

-- name: newest_transition
-- Whether an alert has changed. Index: alert_history_pkey.
SELECT coalesce(max(transition_id), 0) FROM modelmeter.alert_history;

-- name: stream_times
-- When each stream began and when its newest folded event was. Index: none, every stream is wanted.
SELECT stream_id, first_at, last_at FROM modelmeter.stream;

-- name: written_until
-- Grows with every transaction that writes, in all of the server: while it stands still, nothing is new.
SELECT pg_snapshot_xmax(pg_current_snapshot())::text;

-- name: stored_events
-- Events of each version, folded and not. Index: none, both tables are small.
SELECT s.name, s.version, sum(s.events + coalesce(p.events, 0))::bigint
FROM modelmeter.stream s
LEFT JOIN (
    SELECT stream_id, sum(count)::bigint AS events FROM modelmeter.rollup_partial WHERE metric_id = 0 GROUP BY stream_id
) p USING (stream_id)
GROUP BY s.name, s.version;
