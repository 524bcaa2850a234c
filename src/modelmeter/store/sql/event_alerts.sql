-- What event rules found.

-- name: write_event_alerts
-- Into the outbox, numbered with the transitions of alerts; an event has no state, hence no history.
-- What waits is counted no further than its limit. Index: notification_pkey.
INSERT INTO modelmeter.notification (transition_id, at, status, fingerprint, labels, annotations, value, reason, starts_at)
SELECT nextval(pg_get_serial_sequence('modelmeter.alert_history', 'transition_id')), now(), 'firing', fingerprint,
    labels, annotations, value::double precision, %(reason)s, starts_at
FROM jsonb_to_recordset(%(alerts)s::jsonb) AS new (fingerprint uuid, labels jsonb, annotations jsonb, value text,
    starts_at timestamptz)
LIMIT %(most)s - (SELECT count(*) FROM (SELECT FROM modelmeter.notification LIMIT %(most)s) AS waiting);
