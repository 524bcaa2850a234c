-- name: count_partials
-- How many partials wait, about: up to a limit. Index: none.
SELECT count(*) FROM (SELECT 1 FROM modelmeter.{table} LIMIT {limit}) AS waiting

-- name: find_partials_end
-- Where a step ends that begins after a stream and window and takes so many partials of windows before an instant;
-- no row when there are fewer. Index: rollup_partial_1m_window, rollup_partial_1h_window.
SELECT stream_id, window_start FROM modelmeter.{table}
WHERE window_start < {before} AND (stream_id, window_start) > ({after_stream}, {after_window})
ORDER BY stream_id, window_start LIMIT 1 OFFSET {limit};

-- name: take_partials
-- Partials of windows before an instant, in such a range, out of their table. Index: as above.
DELETE FROM modelmeter.{table}
WHERE window_start < {before} AND (stream_id, window_start) > ({after_stream}, {after_window})
    AND (stream_id, window_start) <= ({until_stream}, {until_window})
RETURNING {columns}

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
-- The first chunks of such a group, out of their table. Index: chunk_stream.
DELETE FROM modelmeter.chunk WHERE stream_id = %(stream)s AND start_at >= %(day)s AND start_at <= (
    SELECT max(start_at) FROM (
        SELECT start_at FROM modelmeter.chunk
        WHERE stream_id = %(stream)s AND start_at >= %(day)s AND start_at < %(day)s + interval '1 day'
            AND count < %(small)s AND metrics = %(metrics)s::int[] AND minutely = %(minutely)s
            AND floor(log(8, count))::int BETWEEN %(low)s AND %(high)s
        ORDER BY start_at LIMIT 2000
    ) AS first
)
AND count < %(small)s AND metrics = %(metrics)s::int[] AND minutely = %(minutely)s
AND floor(log(8, count))::int BETWEEN %(low)s AND %(high)s
RETURNING stored_at, count, metrics, columns;

-- name: forget_batches
-- Drop ids that are older than the promise of an Idempotency-Key reaches. Index: ledger_stored_at.
DELETE FROM modelmeter.ledger WHERE stored_at < now() - make_interval(days => %s);
