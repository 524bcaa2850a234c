-- name: active
-- What is silent now. Index: silence_ends_at.
SELECT silence_id, matchers, author, comment, starts_at, ends_at, updated_at FROM modelmeter.silence
WHERE ends_at > %(now)s AND starts_at <= %(now)s;

-- name: list
-- The ones that end last first. Index: silence_ends_at.
SELECT silence_id, matchers, author, comment, starts_at, ends_at, updated_at FROM modelmeter.silence
WHERE ends_at > %(since)s ORDER BY ends_at DESC, silence_id LIMIT %(limit)s;

-- name: one
-- By its id. Index: silence_pkey.
SELECT silence_id, matchers, author, comment, starts_at, ends_at, updated_at FROM modelmeter.silence WHERE silence_id = %(id)s;

-- name: count
-- Those that are not over. Index: silence_ends_at.
SELECT count(*) FROM modelmeter.silence WHERE ends_at > %(now)s;

-- name: put
-- A new one. Index: silence_pkey.
INSERT INTO modelmeter.silence (matchers, author, comment, starts_at, ends_at, updated_at)
VALUES (%(matchers)s, %(author)s, %(comment)s, %(starts_at)s, %(ends_at)s, %(now)s) RETURNING silence_id;

-- name: change
-- All of it but its id. Index: silence_pkey.
UPDATE modelmeter.silence SET matchers = %(matchers)s, author = %(author)s, comment = %(comment)s,
    starts_at = %(starts_at)s, ends_at = %(ends_at)s, updated_at = %(now)s WHERE silence_id = %(id)s RETURNING silence_id;

-- name: expire
-- It ends now, if it has not ended; one that has not begun is never. Index: silence_pkey.
UPDATE modelmeter.silence SET ends_at = %(now)s, starts_at = least(starts_at, %(now)s), updated_at = %(now)s
WHERE silence_id = %(id)s AND ends_at > %(now)s;

-- name: prune
-- Those that ended long ago. Index: silence_ends_at.
DELETE FROM modelmeter.silence WHERE ends_at < %(before)s;
