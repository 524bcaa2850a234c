-- name: read
-- The chunks that may hold events of some spans, each within one UTC day. Index: chunk_stream.
SELECT c.stream_id, c.count, c.metrics, c.columns
FROM unnest(%(days)s::timestamptz[], %(starts)s::timestamptz[], %(ends)s::timestamptz[]) AS s (day, start_at, end_at)
JOIN modelmeter.chunk c ON c.start_at >= s.day AND c.start_at < s.end_at AND c.end_at > s.start_at
WHERE c.stream_id = ANY(%(streams)s::int[]) AND (%(minutely)s::boolean IS NULL OR c.minutely = %(minutely)s)
ORDER BY c.start_at, c.stored_at;

-- name: read_few
-- The same of a few spans, all values in the text: only their partitions are planned. Index: chunk_stream.
SELECT stream_id, count, metrics, columns FROM modelmeter.chunk
WHERE stream_id = ANY(%(streams)s) AND %(touching)s
ORDER BY start_at, stored_at;

-- name: count
-- How many events those chunks hold. Index: chunk_stream.
SELECT coalesce(sum(c.count), 0)::bigint
FROM unnest(%(days)s::timestamptz[], %(starts)s::timestamptz[], %(ends)s::timestamptz[]) AS s (day, start_at, end_at)
JOIN modelmeter.chunk c ON c.start_at >= s.day AND c.start_at < s.end_at AND c.end_at > s.start_at
WHERE c.stream_id = ANY(%(streams)s::int[]) AND (%(minutely)s::boolean IS NULL OR c.minutely = %(minutely)s);
