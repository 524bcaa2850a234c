-- name: newest
-- What has come since the last look: the newest stream, how many metrics, and until when is retired what is not whole
-- for every class of streams. Index: stream_pkey; the others are small.
SELECT (SELECT max(stream_id) FROM modelmeter.stream), (SELECT count(*) FROM modelmeter.metric),
    (SELECT jsonb_object_agg(resolution, until) FROM (
        SELECT resolution, max((extract(epoch FROM until) * 1000000)::bigint) AS until FROM modelmeter.retired
        GROUP BY resolution) AS borders);

-- name: streams_after
-- Streams newer than those known. Index: stream_pkey.
SELECT stream_id, labels FROM modelmeter.stream WHERE stream_id > %s ORDER BY stream_id;

-- name: count_streams_until
-- How many streams there are of those that may be known. Index: stream_pkey.
SELECT count(*) FROM modelmeter.stream WHERE stream_id <= %s;

-- name: metrics
-- All metric names.
SELECT metric_id, name FROM modelmeter.metric;

-- name: chunks
-- The chunks that may hold events of a span; a chunk lies within one UTC day. Index: chunk_stream.
SELECT stream_id, count, metrics, columns FROM modelmeter.chunk
WHERE stream_id = ANY(%(streams)s::int[]) AND start_at >= %(day)s AND start_at < %(end)s AND end_at > %(start)s
    AND metrics && %(metrics)s::int[] AND (%(minutely)s::boolean IS NULL OR minutely = %(minutely)s)
ORDER BY start_at, stored_at;

-- name: count_samples
-- How many raw events `chunks` would read. Index: chunk_stream.
SELECT coalesce(sum(count), 0)::bigint FROM modelmeter.chunk
WHERE stream_id = ANY(%(streams)s::int[]) AND start_at >= %(day)s AND start_at < %(end)s AND end_at > %(start)s
    AND metrics && %(metrics)s::int[];

-- name: count_slow_samples
-- The same of the streams that have no rollups of a minute. Index: chunk_stream.
SELECT coalesce(sum(count), 0)::bigint FROM modelmeter.chunk
WHERE stream_id = ANY(%(streams)s::int[]) AND start_at >= %(day)s AND start_at < %(end)s AND end_at > %(start)s
    AND metrics && %(metrics)s::int[] AND NOT minutely;

-- name: series_between
-- Which series have events in a span of whole days. Index: the primary keys.
SELECT DISTINCT stream_id, metric_id FROM (
    SELECT stream_id, metric_id FROM modelmeter.rollup_1d WHERE window_start >= %(start)s AND window_start < %(end)s
    UNION ALL
    SELECT stream_id, metric_id FROM modelmeter.rollup_partial
    WHERE window_start >= %(start)s AND window_start < %(end)s
) AS found WHERE metric_id <> 0;
