-- name: lock_message
-- Claims that bring parts of one message take turns. No table.
SELECT pg_advisory_xact_lock(hashtextextended(%s::text, 7));

-- name: keep_part
-- A part, once, unless its message is known to be stored. Index: queue_part_pkey.
INSERT INTO modelmeter.queue_part (message_id, number, events, payload) VALUES (%s, %s, %s, %s)
ON CONFLICT DO NOTHING;

-- name: count_parts
-- Index: queue_part_pkey.
SELECT count(*) FROM modelmeter.queue_part WHERE message_id = %s;

-- name: take_parts
-- Index: queue_part_pkey.
DELETE FROM modelmeter.queue_part WHERE message_id = %s RETURNING number, events, payload;

-- name: drop_old_parts
-- Parts whose message never became whole: its sender died, and was never answered. Index: queue_part_arrived_at.
DELETE FROM modelmeter.queue_part WHERE arrived_at < now() - interval '7 days';
