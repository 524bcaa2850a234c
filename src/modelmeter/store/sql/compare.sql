-- name: count_slow_events
-- How many raw events there are of streams that have no rollups of a minute. Index: chunk_stream.
SELECT coalesce(sum(count), 0)::bigint FROM modelmeter.chunk
WHERE stream_id = ANY(%(streams)s::int[]) AND start_at >= %(day)s AND start_at < %(end)s AND end_at > %(start)s
    AND NOT minutely;
