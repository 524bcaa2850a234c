-- Notifications: alerts in groups, what is on its way to each destination, what came of it; and silences.

CREATE INDEX alert_fingerprint ON modelmeter.alert (fingerprint);
CREATE INDEX notification_fingerprint ON modelmeter.notification (fingerprint);

CREATE TABLE modelmeter.notification_group (
    group_id uuid PRIMARY KEY,
    group_key text NOT NULL,
    route_key text NOT NULL,
    labels jsonb NOT NULL,
    flush_at timestamptz NOT NULL,
    told_at timestamptz,
    -- When those that were told firing must be told again to destinations that would forget them.
    resend_at timestamptz,
    truncated integer NOT NULL DEFAULT 0 CHECK (truncated >= 0)
) WITH (fillfactor = 70);
COMMENT ON TABLE modelmeter.notification_group IS
    'Groups of alerts that are told together, and when to look at each next. group_id is BLAKE2b of group_key.';
CREATE INDEX notification_group_due ON modelmeter.notification_group (least(flush_at, resend_at));

CREATE TABLE modelmeter.notification_member (
    group_id uuid NOT NULL REFERENCES modelmeter.notification_group ON DELETE CASCADE,
    member_key uuid NOT NULL,
    fingerprint uuid NOT NULL,
    labels jsonb NOT NULL,
    annotations jsonb NOT NULL,
    value double precision,
    reason text NOT NULL,
    starts_at timestamptz NOT NULL,
    ends_at timestamptz,
    event boolean NOT NULL,
    told boolean NOT NULL DEFAULT false,
    PRIMARY KEY (group_id, member_key),
    CHECK (NOT event OR (ends_at IS NULL AND NOT told))
) WITH (fillfactor = 70);
COMMENT ON TABLE modelmeter.notification_member IS
    'The alerts of each group: those that fire, and what is not told yet. member_key is the fingerprint; an event has its own.';
CREATE INDEX notification_member_fingerprint ON modelmeter.notification_member (fingerprint);

CREATE TABLE modelmeter.delivery (
    delivery_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    deduplication_key uuid NOT NULL UNIQUE DEFAULT gen_random_uuid(),
    destination text NOT NULL,
    kind text NOT NULL,
    group_id uuid NOT NULL,
    why text NOT NULL,
    created_at timestamptz NOT NULL,
    next_attempt_at timestamptz NOT NULL,
    leased_until timestamptz,
    attempts integer NOT NULL DEFAULT 0 CHECK (attempts >= 0),
    reason text NOT NULL DEFAULT '',
    message jsonb NOT NULL
) WITH (fillfactor = 70);
COMMENT ON TABLE modelmeter.delivery IS
    'The outbox: a row is one message for one destination. Those of one group to one destination go in order.';
CREATE INDEX delivery_order ON modelmeter.delivery (destination, group_id, delivery_id);
CREATE INDEX delivery_due ON modelmeter.delivery (destination, next_attempt_at);

CREATE TABLE modelmeter.delivery_history (
    deduplication_key uuid PRIMARY KEY,
    at timestamptz NOT NULL,
    destination text NOT NULL,
    kind text NOT NULL,
    group_key text NOT NULL,
    status text NOT NULL CHECK (status IN ('delivered', 'given up')),
    why text NOT NULL,
    alerts integer NOT NULL,
    attempts integer NOT NULL,
    reason text NOT NULL,
    created_at timestamptz NOT NULL,
    CHECK ((status = 'given up') = (reason <> ''))
);
COMMENT ON TABLE modelmeter.delivery_history IS 'What became of each message; kept for MODELMETER_NOTIFICATION_HISTORY_DAYS.';
CREATE INDEX delivery_history_at ON modelmeter.delivery_history (at);

CREATE TABLE modelmeter.silence (
    silence_id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    matchers jsonb NOT NULL CHECK (jsonb_typeof(matchers) = 'array' AND jsonb_array_length(matchers) > 0),
    author text NOT NULL CHECK (author <> ''),
    comment text NOT NULL CHECK (comment <> ''),
    starts_at timestamptz NOT NULL,
    ends_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    CHECK (starts_at <= ends_at)
);
COMMENT ON TABLE modelmeter.silence IS 'Alerts whose labels suit all matchers are not told from starts_at to ends_at.';
CREATE INDEX silence_ends_at ON modelmeter.silence (ends_at);
