-- name: streams
-- The streams of a model (and version), with some labels. Index: stream_name_version.
SELECT stream_id, version, labels FROM modelmeter.stream
WHERE (%(name)s::text IS NULL OR name = %(name)s) AND (%(version)s::text IS NULL OR version = %(version)s)
    AND labels @> %(labels)s::jsonb;

-- name: model_names
-- For «did you mean». Index: stream_name_version.
SELECT DISTINCT name FROM modelmeter.stream;

-- name: versions
-- For «did you mean». Index: stream_name_version.
SELECT DISTINCT version FROM modelmeter.stream WHERE name = %s;

-- name: models
-- Every model and version: what is folded, in the stream, and what is not yet. Index: none, both tables are small.
SELECT s.name, s.version, sum(s.events + coalesce(p.events, 0))::bigint, min(least(s.first_at, p.first_at)),
    max(greatest(s.last_at, p.last_at))
FROM modelmeter.stream s
LEFT JOIN (
    SELECT stream_id, sum(count)::bigint AS events, min(first_at) AS first_at, max(last_at) AS last_at
    FROM modelmeter.rollup_partial WHERE metric_id = 0 GROUP BY stream_id
) p USING (stream_id)
WHERE %(name)s::text IS NULL OR s.name = %(name)s
GROUP BY s.name, s.version HAVING sum(s.events + coalesce(p.events, 0)) > 0
ORDER BY s.name, s.version;

-- name: metrics
-- All metric names.
SELECT metric_id, name FROM modelmeter.metric;

-- name: raw_chunks
-- The chunks that may hold events of a span, in the order of time; a chunk lies within one UTC day. Index: chunk_stream.
SELECT stream_id, count, metrics, columns FROM modelmeter.chunk
WHERE stream_id = ANY(%(streams)s::int[]) AND start_at >= %(day)s AND start_at < %(end)s AND end_at > %(start)s
ORDER BY start_at, stored_at;

-- name: raw_days
-- How many raw events and samples of a span of whole days there are, by day. Index: chunk_stream.
SELECT date_trunc('day', start_at, 'UTC'), sum(count)::bigint, sum(count * cardinality(metrics)::bigint)::bigint
FROM modelmeter.chunk WHERE stream_id = ANY(%(streams)s::int[]) AND start_at >= %(start)s AND start_at < %(end)s
GROUP BY 1;

-- name: raw_metrics
-- Which metrics the chunks of a span have. Index: chunk_stream.
SELECT DISTINCT unnest(metrics) FROM modelmeter.chunk
WHERE stream_id = ANY(%(streams)s::int[]) AND start_at >= %(day)s AND start_at < %(end)s AND end_at > %(start)s;

-- name: newest_day
-- When the newest chunk before an instant begins. Index: chunk_stream.
SELECT max(start_at) FROM modelmeter.chunk
WHERE stream_id = ANY(%(streams)s::int[]) AND start_at >= %(day)s AND start_at < %(end)s;

-- name: chunks_of_day
-- Where the chunks of a span are, newest first, without their columns. Index: chunk_stream.
SELECT DISTINCT end_at, stored_at, stream_id, start_at FROM modelmeter.chunk
WHERE stream_id = ANY(%(streams)s::int[]) AND start_at >= %(day)s AND start_at < %(end)s AND end_at > %(start)s
ORDER BY end_at DESC, stored_at DESC;

-- name: chunks_at
-- The chunk, or the few, at such a place. Index: chunk_stream.
SELECT stream_id, count, metrics, columns FROM modelmeter.chunk
WHERE end_at = %s AND stored_at = %s AND stream_id = %s AND start_at = %s;

-- name: state
-- What is stored of a span in whole hours, as a fingerprint: every row that is written has an xmin of its own, and a
-- row is never changed in place. Rows that the span cuts through are told; so is what is retired. Index: as read_rollups has them.
SELECT rows.*, retired.*
FROM (SELECT count(*), coalesce(sum(hash_record_extended(ROW(tableoid, xmin, stream_id, metric_id, window_start), 0)), 0)::text,
    coalesce(bool_or(first_at < %(since)s), false), coalesce(bool_or(last_at >= %(until)s), false)
FROM (
    SELECT tableoid, xmin, stream_id, metric_id, window_start, first_at, last_at FROM modelmeter.rollup_partial_1m
    WHERE stream_id = ANY(%(streams)s::int[]) AND (%(metrics)s::int[] IS NULL OR metric_id = ANY(%(metrics)s))
        AND window_start >= %(start)s AND window_start < %(end)s
    UNION ALL
    SELECT tableoid, xmin, stream_id, metric_id, window_start, first_at, last_at FROM modelmeter.rollup_partial_1h
    WHERE stream_id = ANY(%(streams)s::int[]) AND (%(metrics)s::int[] IS NULL OR metric_id = ANY(%(metrics)s))
        AND window_start >= %(start)s AND window_start < %(end)s
    UNION ALL
    SELECT tableoid, xmin, stream_id, metric_id, window_start, first_at, last_at FROM modelmeter.rollup_1h
    WHERE stream_id = ANY(%(streams)s::int[]) AND (%(metrics)s::int[] IS NULL OR metric_id = ANY(%(metrics)s))
        AND window_start >= %(start)s AND window_start < %(first_day)s
    UNION ALL
    SELECT tableoid, xmin, stream_id, metric_id, window_start, first_at, last_at FROM modelmeter.rollup_1h
    WHERE stream_id = ANY(%(streams)s::int[]) AND (%(metrics)s::int[] IS NULL OR metric_id = ANY(%(metrics)s))
        AND window_start >= %(last_day)s AND window_start < %(end)s
    UNION ALL
    SELECT tableoid, xmin, stream_id, metric_id, window_start, first_at, last_at FROM modelmeter.rollup_1d
    WHERE stream_id = ANY(%(streams)s::int[]) AND (%(metrics)s::int[] IS NULL OR metric_id = ANY(%(metrics)s))
        AND window_start >= %(first_day)s AND window_start < %(last_day)s
) AS stored
WHERE last_at >= %(since)s AND first_at < %(until)s) AS rows,
    (SELECT coalesce(sum(hash_record_extended(ROW(xmin, class, resolution), 0)), 0)::text FROM modelmeter.retired) AS retired;

-- name: catalog_state
-- The same of all streams and what is not folded yet. Index: none, both tables are small.
SELECT (SELECT count(*) || ' ' || coalesce(sum(hash_record_extended(ROW(xmin, stream_id), 0)), 0) FROM modelmeter.stream)
    || ' ' ||
    (SELECT count(*) || ' ' || coalesce(sum(hash_record_extended(ROW(p.tableoid, p.xmin, stream_id, window_start), 0)), 0)
    FROM modelmeter.rollup_partial_1m p WHERE metric_id = 0)
    || ' ' ||
    (SELECT count(*) || ' ' || coalesce(sum(hash_record_extended(ROW(p.tableoid, p.xmin, stream_id, window_start), 0)), 0)
    FROM modelmeter.rollup_partial_1h p WHERE metric_id = 0);
