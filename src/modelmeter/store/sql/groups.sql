-- name: lock
-- One dispatcher at a time groups. Index: none.
SELECT pg_try_advisory_xact_lock(%(key)s);

-- name: take
-- The oldest notifications, out of the table, with whether their alert fires now and whether it is a lone event:
-- all of one snapshot. Index: notification_pkey, alert_fingerprint, notification_fingerprint.
WITH taken AS (
    DELETE FROM modelmeter.notification WHERE transition_id = ANY(ARRAY(
        SELECT transition_id FROM modelmeter.notification ORDER BY transition_id LIMIT %(limit)s FOR UPDATE SKIP LOCKED
    )) RETURNING *
)
SELECT transition_id, at, status, fingerprint, labels, annotations, value, reason, starts_at, ends_at,
    EXISTS (SELECT FROM modelmeter.alert a WHERE a.fingerprint = taken.fingerprint AND a.state = 'firing'),
    EXISTS (SELECT FROM modelmeter.notification later WHERE later.fingerprint = taken.fingerprint
        AND later.status = 'resolved' AND later.transition_id > taken.transition_id)
FROM taken ORDER BY transition_id;

-- name: put_group
-- A new group, if it is new. Index: notification_group_pkey.
INSERT INTO modelmeter.notification_group (group_id, group_key, route_key, labels, flush_at)
VALUES (%(group)s, %(key)s, %(route)s, %(labels)s, %(flush_at)s) ON CONFLICT (group_id) DO NOTHING;

-- name: put_member
-- An alert that fires, into its group; told stays what it is. Index: notification_member_pkey.
INSERT INTO modelmeter.notification_member
    (group_id, member_key, fingerprint, labels, annotations, value, reason, starts_at, event)
VALUES (%(group)s, %(member)s, %(fingerprint)s, %(labels)s, %(annotations)s, %(value)s, %(reason)s, %(starts_at)s, %(event)s)
ON CONFLICT (group_id, member_key) DO UPDATE SET labels = excluded.labels, annotations = excluded.annotations,
    value = excluded.value, reason = excluded.reason, starts_at = excluded.starts_at, ends_at = NULL;

-- name: resolve_member
-- An alert that is resolved, in all its groups. Index: notification_member_fingerprint.
UPDATE modelmeter.notification_member SET ends_at = %(ends_at)s, annotations = %(annotations)s, value = %(value)s, reason = %(reason)s
WHERE fingerprint = %(fingerprint)s AND NOT event;

-- name: count_events
-- Of these groups, how many events each holds. Index: notification_member_pkey.
SELECT group_id, count(*) FROM modelmeter.notification_member WHERE group_id = ANY(%(groups)s) AND event GROUP BY group_id;

-- name: truncate_group
-- So many more events than the group may hold. Index: notification_group_pkey.
UPDATE modelmeter.notification_group SET truncated = truncated + %(more)s WHERE group_id = %(group)s;

-- name: due
-- Groups to look at, the longest due first. Index: notification_group_due.
SELECT group_id, group_key, route_key, labels, flush_at, told_at, resend_at, truncated FROM modelmeter.notification_group
WHERE least(flush_at, resend_at) <= %(now)s ORDER BY least(flush_at, resend_at) LIMIT %(limit)s FOR UPDATE;

-- name: members
-- The alerts of these groups, as they stand now if they fire. Index: notification_member_pkey, alert_fingerprint.
SELECT m.group_id, m.member_key, m.fingerprint, m.labels, coalesce(a.annotations, m.annotations),
    CASE WHEN a.fingerprint IS NULL THEN m.value ELSE a.value END, coalesce(a.reason, m.reason),
    m.starts_at, m.ends_at, m.event, m.told
FROM modelmeter.notification_member m
LEFT JOIN LATERAL (
    SELECT * FROM modelmeter.alert WHERE fingerprint = m.fingerprint AND state = 'firing' AND m.ends_at IS NULL AND NOT m.event
    ORDER BY group_name, rule_name LIMIT 1
) a ON true
WHERE m.group_id = ANY(%(groups)s) ORDER BY m.group_id, m.starts_at, m.labels::text, m.member_key;

-- name: save_group
-- When to look at it next. Index: notification_group_pkey.
UPDATE modelmeter.notification_group
SET flush_at = %(flush_at)s, told_at = %(told_at)s, resend_at = %(resend_at)s, truncated = %(truncated)s WHERE group_id = %(group)s;

-- name: drop_members
-- What is over. Index: notification_member_pkey.
DELETE FROM modelmeter.notification_member WHERE group_id = %(group)s AND member_key = ANY(%(members)s);

-- name: tell_members
-- These were told. Index: notification_member_pkey.
UPDATE modelmeter.notification_member SET told = true
WHERE group_id = %(group)s AND member_key = ANY(%(members)s) AND NOT told;

-- name: drop_group
-- With what is in it. Index: notification_group_pkey.
DELETE FROM modelmeter.notification_group WHERE group_id = %(group)s;

-- name: resolve_gone
-- Alerts that fire no more, without a notification that says so. Index: alert_fingerprint, notification_fingerprint.
UPDATE modelmeter.notification_member m SET ends_at = %(now)s, reason = 'the alert is gone'
WHERE ends_at IS NULL AND NOT event
AND NOT EXISTS (SELECT FROM modelmeter.alert a WHERE a.fingerprint = m.fingerprint AND a.state = 'firing')
AND NOT EXISTS (SELECT FROM modelmeter.notification n WHERE n.fingerprint = m.fingerprint);

-- name: placements
-- Every alert that is in a group. Index: none, all of it.
SELECT m.group_id, m.member_key, m.fingerprint, m.labels, m.annotations, m.value, m.reason, m.starts_at, m.ends_at, m.event, m.told
FROM modelmeter.notification_member m ORDER BY m.group_id, m.member_key;

-- name: unplaced
-- Alerts that fire, of which no notification waits. Index: alert_fingerprint, notification_fingerprint.
SELECT DISTINCT ON (fingerprint) fingerprint, labels, annotations, value, reason, coalesce(fired_at, active_at)
FROM modelmeter.alert a WHERE state = 'firing'
AND NOT EXISTS (SELECT FROM modelmeter.notification n WHERE n.fingerprint = a.fingerprint)
ORDER BY fingerprint, group_name, rule_name;

-- name: drop_empty_groups
-- Groups that a change of the file has left without alerts. Index: notification_member_pkey.
DELETE FROM modelmeter.notification_group g
WHERE NOT EXISTS (SELECT FROM modelmeter.notification_member m WHERE m.group_id = g.group_id);

-- name: firing
-- The labels of all alerts that fire. Index: none, all of it.
SELECT labels FROM modelmeter.alert WHERE state = 'firing';

-- name: alerts
-- The alerts that fire, whole, for those who ask. Index: alert_fingerprint.
SELECT DISTINCT ON (fingerprint) fingerprint, labels, annotations, value, reason, coalesce(fired_at, active_at), evaluated_at
FROM modelmeter.alert WHERE state = 'firing' ORDER BY fingerprint, group_name, rule_name;
