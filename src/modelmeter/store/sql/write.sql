-- name: remember_batches
-- Take the ids into the ledger; the ones returned were new. In order, so that two workers cannot deadlock.
INSERT INTO modelmeter.ledger (batch_id)
SELECT id FROM unnest(%s::uuid[]) AS id ORDER BY id
ON CONFLICT (batch_id) DO NOTHING RETURNING batch_id;

-- name: add_streams
-- Make streams that are not there yet. Index: stream_fingerprint_key.
INSERT INTO modelmeter.stream (fingerprint, name, version, labels, class)
SELECT f, l ->> 'name', l ->> 'version', l, coalesce(c.class, 0)
FROM unnest(%s::uuid[], %s::jsonb[], %s::text[]) AS new (f, l, n)
LEFT JOIN modelmeter.retention_class c ON c.name = new.n
ORDER BY f
ON CONFLICT (fingerprint) DO NOTHING;

-- name: find_streams
-- The ids of streams by fingerprint. Index: stream_fingerprint_key.
SELECT fingerprint, stream_id, class FROM modelmeter.stream WHERE fingerprint = ANY(%s::uuid[]);

-- name: find_classes
-- The streams among some that are of a class of their own. Index: stream_pkey.
SELECT stream_id, class FROM modelmeter.stream WHERE stream_id = ANY(%s::int[]) AND class <> 0;

-- name: has_classes
-- Whether there are any. A table of a few rows.
SELECT EXISTS (SELECT FROM modelmeter.retention_class);

-- name: add_metrics
-- Make metrics that are not there yet. Index: metric_name_key.
INSERT INTO modelmeter.metric (name) SELECT n FROM unnest(%s::text[]) AS n ORDER BY n ON CONFLICT (name) DO NOTHING;

-- name: find_metrics
-- The ids of metrics by name. Index: metric_name_key.
SELECT name, metric_id FROM modelmeter.metric WHERE name = ANY(%s::text[]);

-- name: copy_chunks
-- Binary COPY of packed chunks.
COPY modelmeter.chunk (stream_id, start_at, end_at, count, minutely, metrics, columns, class) FROM STDIN (FORMAT binary);

-- name: copy_rollups
-- Binary COPY of rollups; the table is put in, and `class` where they are of one.
COPY modelmeter.{table} (stream_id, metric_id, window_start, count, sum, deviation, min, max, first_at, last_at,
    last, sketch{class}) FROM STDIN (FORMAT binary);

-- name: bury
-- A message that cannot be stored, kept whole with its reason.
INSERT INTO modelmeter.dead_letter (reason, events, payload) VALUES (%s, %s, %s);
