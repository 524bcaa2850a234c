-- name: count_partials
-- How many partials wait, about: up to a limit. Index: none.
SELECT count(*) FROM (SELECT FROM modelmeter.{table} LIMIT {limit}) AS waiting

-- name: take_partials
-- Partials of windows before an instant, out of their table. Index: none, most rows qualify.
DELETE FROM modelmeter.{table} WHERE ctid = ANY(ARRAY(
    SELECT ctid FROM modelmeter.{table} WHERE window_start < {before} LIMIT {limit}
)) RETURNING {columns}

-- name: add_totals
-- What was folded, in the streams. Index: stream_pkey.
UPDATE modelmeter.stream s SET events = s.events + n.events, first_at = least(s.first_at, n.first_at),
    last_at = greatest(s.last_at, n.last_at)
FROM unnest(%s::int[], %s::bigint[], %s::timestamptz[], %s::timestamptz[]) AS n (stream_id, events, first_at, last_at)
WHERE s.stream_id = n.stream_id;

-- name: small_chunks
-- Groups of at least so many chunks of one stream, set of metrics, day and size class; of a day that is over, any two.
-- Index: none.
SELECT stream_id, metrics, day, minutely, min(class), max(class) FROM (
    SELECT stream_id, metrics, minutely, date_trunc('day', start_at, 'UTC') AS day, floor(log(8, count))::int AS class
    FROM modelmeter.chunk WHERE count < %(small)s
) AS classed
GROUP BY stream_id, metrics, day, minutely, CASE WHEN day < %(today)s THEN 0 ELSE class END
HAVING count(*) >= CASE WHEN day < %(today)s THEN 2 ELSE 8 END
LIMIT 500;

-- name: take_chunks
-- The chunks of such a group, out of their table. Index: chunk_stream.
DELETE FROM modelmeter.chunk WHERE ctid = ANY(ARRAY(
    SELECT ctid FROM modelmeter.chunk WHERE stream_id = %(stream)s AND start_at >= %(day)s
        AND start_at < %(day)s + interval '1 day' AND count < %(small)s AND metrics = %(metrics)s::int[]
        AND minutely = %(minutely)s AND floor(log(8, count))::int BETWEEN %(low)s AND %(high)s
    LIMIT 2000
)) AND stream_id = %(stream)s AND start_at >= %(day)s AND start_at < %(day)s + interval '1 day'
RETURNING stored_at, count, metrics, columns;

-- name: forget_batches
-- Drop ids that are older than the promise of an Idempotency-Key reaches. Index: ledger_stored_at.
DELETE FROM modelmeter.ledger WHERE stored_at < now() - make_interval(days => %s);
