-- name: enqueue
-- One message. The slot follows the clock.
INSERT INTO modelmeter.queue (events, bytes, payload) VALUES (%s, %s, %s);

-- name: pick
-- The oldest messages that no other worker has. Index: queue_N_pkey, merged over the slots.
SELECT message_id, slot, events, bytes FROM modelmeter.queue ORDER BY message_id LIMIT %s FOR UPDATE SKIP LOCKED;

-- name: take
-- The picked ones, out of the queue. Index: queue_N_pkey.
DELETE FROM modelmeter.queue WHERE message_id = ANY(%s::bigint[]) AND slot = ANY(%s::smallint[]) RETURNING events, payload;

-- name: backlog
-- What waits. The payloads lie elsewhere (TOAST), so this reads a hundred bytes a message.
SELECT count(*), coalesce(sum(events), 0)::bigint, coalesce(sum(bytes), 0)::bigint,
    coalesce(extract(epoch FROM clock_timestamp() - min(enqueued_at)), 0)::double precision
FROM modelmeter.queue;

-- name: idle_slots
-- The slots that are not written now or next, and hold pages.
SELECT slot FROM generate_series(0, 3) AS slot
WHERE (slot - floor(extract(epoch FROM clock_timestamp()) / 30)::bigint % 4 + 4) % 4 IN (2, 3)
    AND pg_relation_size('modelmeter.queue_' || slot) > 0;

-- name: table_bytes
-- What the queue takes on disk, with indexes and TOAST.
SELECT sum(pg_total_relation_size('modelmeter.queue_' || slot))::bigint FROM generate_series(0, 3) AS slot;

-- name: purge
-- All that no worker has in hand. Index: queue_N_pkey.
DELETE FROM modelmeter.queue WHERE message_id IN (SELECT message_id FROM modelmeter.queue FOR UPDATE SKIP LOCKED);
