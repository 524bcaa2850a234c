-- name: list
-- The newest. Index: dead_letter_pkey.
SELECT dead_letter_id, died_at, events, octet_length(payload), reason FROM modelmeter.dead_letter
ORDER BY dead_letter_id DESC LIMIT 1000;

-- name: retry
-- Back onto the queue, in one statement. Index: dead_letter_pkey.
WITH gone AS (
    DELETE FROM modelmeter.dead_letter WHERE %(ids)s::bigint[] IS NULL OR dead_letter_id = ANY(%(ids)s) RETURNING events, payload
)
INSERT INTO modelmeter.queue (events, bytes, payload) SELECT events, octet_length(payload), payload FROM gone;

-- name: drop
-- For good. Index: dead_letter_pkey.
DELETE FROM modelmeter.dead_letter WHERE %(ids)s::bigint[] IS NULL OR dead_letter_id = ANY(%(ids)s);

-- name: ids
-- Of all, or of those of these that are there, the oldest first. Index: dead_letter_pkey.
SELECT dead_letter_id FROM modelmeter.dead_letter WHERE %(ids)s::bigint[] IS NULL OR dead_letter_id = ANY(%(ids)s)
ORDER BY dead_letter_id;

-- name: read
-- One, whole. Index: dead_letter_pkey.
SELECT dead_letter_id, events, payload FROM modelmeter.dead_letter WHERE dead_letter_id = %(id)s;
