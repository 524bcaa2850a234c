-- name: share
-- Whoever stores or compacts holds this until it commits; whoever records a correction waits for them. No table.
SELECT pg_advisory_xact_lock_shared(1835860001);

-- name: exclude
-- The other side of it. No table.
SELECT pg_advisory_xact_lock(1835860001);

-- name: since
-- The corrections of what was received at some time or later. Index: correction_received_at.
SELECT kind, received_at, match, fingerprints, start_at, end_at, author, reason FROM modelmeter.correction
WHERE received_at > %s ORDER BY correction_id;

-- name: is_pending
-- Whether one is recorded and not applied. Index: correction_pending.
SELECT EXISTS (SELECT FROM modelmeter.correction WHERE applied_at IS NULL);

-- name: pending
-- Those, the oldest first. Index: correction_pending.
SELECT correction_id FROM modelmeter.correction WHERE applied_at IS NULL ORDER BY correction_id;

-- name: record
-- A correction takes effect. recorded_at is by the clock, not by when the transaction began.
INSERT INTO modelmeter.correction
    (kind, received_at, recorded_at, match, fingerprints, start_at, end_at, author, reason, added)
VALUES (%(kind)s, %(received_at)s, clock_timestamp(), %(match)s, %(fingerprints)s::uuid[], %(start)s, %(end)s,
    %(author)s, %(reason)s, %(added)s)
RETURNING correction_id;

-- name: read
-- One of them. Index: correction_pkey.
SELECT kind, received_at, match, fingerprints, start_at, end_at, author, reason, recorded_at, applied_at IS NOT NULL,
    streams, removed
FROM modelmeter.correction WHERE correction_id = %s;

-- name: newest
-- The newest, for people. Index: correction_pkey.
SELECT correction_id, kind, received_at, applied_at, match, cardinality(fingerprints), start_at, end_at, author, reason,
    streams, removed, added
FROM modelmeter.correction ORDER BY correction_id DESC LIMIT %s;

-- name: streams
-- The streams that a correction may touch, of a name or of all. Index: stream_name_version.
SELECT stream_id, labels, class FROM modelmeter.stream WHERE %(name)s::text IS NULL OR name = %(name)s;

-- name: streams_by_fingerprint
-- The same, by fingerprint. Index: stream_fingerprint_key.
SELECT stream_id, labels, class FROM modelmeter.stream WHERE fingerprint = ANY(%s::uuid[]);

-- name: days
-- The streams and days with raw events that a correction may touch, and about how many. Index: chunk_stream.
SELECT date_trunc('day', start_at, 'UTC') AS day, stream_id, sum(count)::bigint FROM modelmeter.chunk
WHERE stream_id = ANY(%(streams)s::int[]) AND start_at >= %(first)s AND start_at < %(end)s AND end_at > %(start)s
    AND stored_at < %(recorded_at)s
GROUP BY day, stream_id ORDER BY day, stream_id;

-- name: take_chunks
-- The chunks of some streams and a day that overlap the span and were there before, out of their table. Index: chunk_stream.
DELETE FROM modelmeter.chunk
WHERE stream_id = ANY(%(streams)s::int[]) AND start_at >= %(day)s AND start_at < %(day)s + interval '1 day'
    AND start_at < %(end)s AND end_at > %(start)s AND stored_at < %(recorded_at)s
RETURNING stream_id, stored_at, minutely, class, count, metrics, columns;

-- name: put_chunk
-- What is left of one of them, as old as it was.
INSERT INTO modelmeter.chunk (stream_id, start_at, end_at, stored_at, count, minutely, metrics, columns, class)
VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s);

-- name: count_folded
-- How many events are folded of some streams in a span of whole days, in one table. Index: the primary keys,
-- rollup_partial_1m_window, rollup_partial_1h_window.
SELECT stream_id, sum(count)::bigint FROM modelmeter.{table}
WHERE stream_id = ANY(%(streams)s::int[]) AND window_start >= %(start)s AND window_start < %(end)s AND metric_id = 0
GROUP BY stream_id;

-- name: drop_folded
-- All of it, out of its table. Index: the same.
DELETE FROM modelmeter.{table}
WHERE stream_id = ANY(%(streams)s::int[]) AND window_start >= %(start)s AND window_start < %(end)s;

-- name: left_at
-- When the first and the last of the folded events of some streams are. Index: rollup_1d_pkey.
SELECT stream_id, min(first_at), max(last_at) FROM modelmeter.rollup_1d
WHERE stream_id = ANY(%s::int[]) AND metric_id = 0 GROUP BY stream_id;

-- name: subtract
-- Events that are folded no more, from the totals of their streams; with what left_at says of each. Index: stream_pkey.
UPDATE modelmeter.stream s SET events = s.events - n.events,
    first_at = CASE WHEN s.events = n.events THEN NULL ELSE coalesce(n.first_at, s.first_at) END,
    last_at = CASE WHEN s.events = n.events THEN NULL ELSE coalesce(n.last_at, s.last_at) END
FROM unnest(%s::int[], %s::bigint[], %s::timestamptz[], %s::timestamptz[]) AS n (stream_id, events, first_at, last_at)
WHERE s.stream_id = n.stream_id;

-- name: first_day
-- The first day that is folded of some streams. Index: rollup_1d_pkey.
SELECT min(window_start) FROM modelmeter.rollup_1d WHERE stream_id = ANY(%s::int[]);

-- name: count_span
-- How many events are folded of some streams in a span of whole days, and of how many streams. Index: as above.
SELECT stream_id, sum(count)::bigint FROM (
    SELECT stream_id, count FROM modelmeter.rollup_1d
    WHERE metric_id = 0 AND stream_id = ANY(%(streams)s::int[]) AND window_start >= %(start)s AND window_start < %(end)s
    UNION ALL
    SELECT stream_id, count FROM modelmeter.rollup_partial
    WHERE metric_id = 0 AND stream_id = ANY(%(streams)s::int[]) AND window_start >= %(start)s AND window_start < %(end)s
) AS folded GROUP BY stream_id;

-- name: add_removed
-- What a step has removed. Index: correction_pkey.
UPDATE modelmeter.correction SET removed = removed + %s WHERE correction_id = %s;

-- name: finish
-- It is applied. Index: correction_pkey.
UPDATE modelmeter.correction SET applied_at = clock_timestamp(), streams = %s
WHERE correction_id = %s AND applied_at IS NULL;

-- name: hold
-- Who applies corrections, one session at a time. No table.
SELECT pg_advisory_lock(1835860002);

-- name: let_go
-- No table.
SELECT pg_advisory_unlock(1835860002);
