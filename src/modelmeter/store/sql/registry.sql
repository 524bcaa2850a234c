-- name: count_streams
-- How many streams there are. Index: stream_pkey.
SELECT count(*) FROM modelmeter.stream;

-- name: fingerprints
-- All of them. Index: stream_fingerprint_key.
SELECT fingerprint FROM modelmeter.stream;

-- name: metric_names
-- All of them. Index: metric_name_key.
SELECT name FROM modelmeter.metric;

-- name: classed
-- The streams that are of a class. Index: none.
SELECT fingerprint, class FROM modelmeter.stream WHERE class <> 0;
