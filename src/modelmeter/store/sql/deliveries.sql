-- name: put
-- One message for one destination. Index: none.
INSERT INTO modelmeter.delivery (destination, kind, group_id, why, created_at, next_attempt_at, message)
VALUES (%(destination)s, %(kind)s, %(group)s, %(why)s, %(now)s, %(now)s, %(message)s);

-- name: pending_counts
-- How many wait for each destination, and of which group. Index: delivery_order.
SELECT destination, group_id, count(*) FROM modelmeter.delivery GROUP BY destination, group_id;

-- name: due_destinations
-- For whom something is due. Index: delivery_due.
SELECT destination FROM modelmeter.delivery
WHERE next_attempt_at <= %(now)s AND (leased_until IS NULL OR leased_until <= %(now)s) GROUP BY destination;

-- name: claim
-- Lease what is due for one destination; of a group only the oldest, so that its messages keep their order.
-- Index: delivery_due, delivery_order.
UPDATE modelmeter.delivery SET leased_until = %(until)s, attempts = attempts + 1 WHERE delivery_id = ANY(ARRAY(
    SELECT delivery_id FROM modelmeter.delivery d
    WHERE destination = %(destination)s AND next_attempt_at <= %(now)s AND (leased_until IS NULL OR leased_until <= %(now)s)
    AND NOT EXISTS (
        SELECT FROM modelmeter.delivery older
        WHERE older.destination = d.destination AND older.group_id = d.group_id AND older.delivery_id < d.delivery_id
    )
    ORDER BY next_attempt_at LIMIT %(limit)s FOR UPDATE SKIP LOCKED
)) RETURNING delivery_id, deduplication_key, destination, kind, created_at, attempts, why, message;

-- name: delay
-- To be tried again. Only by who holds it: the number of attempts tells. Index: delivery_pkey.
UPDATE modelmeter.delivery SET leased_until = NULL, next_attempt_at = %(at)s, reason = %(reason)s
WHERE delivery_id = %(id)s AND attempts = %(attempts)s;

-- name: finish
-- Out of the outbox and into the history, once. Index: delivery_pkey.
WITH gone AS (DELETE FROM modelmeter.delivery WHERE delivery_id = %(id)s RETURNING *)
INSERT INTO modelmeter.delivery_history
    (deduplication_key, at, destination, kind, group_key, status, why, alerts, attempts, reason, created_at)
SELECT deduplication_key, %(now)s, destination, kind, message ->> 'groupKey', %(status)s, why,
    jsonb_array_length(message -> 'alerts'), attempts, %(reason)s, created_at FROM gone;

-- name: forget
-- Delivered, and not worth a line. Index: delivery_pkey.
DELETE FROM modelmeter.delivery WHERE delivery_id = %(id)s;

-- name: refuse
-- A message for which the outbox has no room: its line in the history. Index: none.
INSERT INTO modelmeter.delivery_history
    (deduplication_key, at, destination, kind, group_key, status, why, alerts, attempts, reason, created_at)
VALUES (gen_random_uuid(), %(now)s, %(destination)s, %(kind)s, %(group_key)s, 'given up', %(why)s, %(alerts)s, 0, %(reason)s, %(now)s);

-- name: orphans
-- What waits too long for a destination that nobody serves. Index: delivery_due.
SELECT delivery_id, kind FROM modelmeter.delivery
WHERE NOT destination = ANY(%(known)s) AND created_at < %(before)s LIMIT 1000 FOR UPDATE SKIP LOCKED;

-- name: by_destination
-- Counts for each destination: what waits, what has failed before, the oldest. Index: none, all of it.
SELECT destination, kind, count(*), count(*) FILTER (WHERE reason <> ''), min(created_at) FROM modelmeter.delivery
GROUP BY destination, kind;

-- name: history_by_destination
-- Counts since an instant. Index: delivery_history_at.
SELECT destination, kind, count(*) FILTER (WHERE status = 'delivered'), count(*) FILTER (WHERE status = 'given up'), max(at)
FROM modelmeter.delivery_history WHERE at >= %(since)s GROUP BY destination, kind;

-- name: waiting
-- What waits, the oldest first. Index: delivery_pkey.
SELECT deduplication_key, destination, kind, message ->> 'groupKey', why, jsonb_array_length(message -> 'alerts'),
    attempts, reason, created_at, next_attempt_at
FROM modelmeter.delivery ORDER BY delivery_id LIMIT %(limit)s;

-- name: history
-- What became of messages, the newest first. Index: delivery_history_at.
SELECT deduplication_key, destination, kind, group_key, why, alerts, attempts, reason, created_at, at, status
FROM modelmeter.delivery_history WHERE %(status)s = '' OR status = %(status)s ORDER BY at DESC LIMIT %(limit)s;

-- name: prune
-- Old lines. Index: delivery_history_at.
DELETE FROM modelmeter.delivery_history WHERE at < %(before)s;

-- name: prune_beyond
-- The oldest lines beyond a number. Index: delivery_history_at.
DELETE FROM modelmeter.delivery_history WHERE at < (
    SELECT at FROM modelmeter.delivery_history ORDER BY at DESC OFFSET %(limit)s LIMIT 1
);
