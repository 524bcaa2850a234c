-- Alerts: what is pending or firing now, every change of it, and what is to be told of the changes.

CREATE TABLE modelmeter.rule_group (
    name text PRIMARY KEY CHECK (name <> ''),
    content text NOT NULL,
    updated_at timestamptz NOT NULL DEFAULT now(),
    updated_by text NOT NULL DEFAULT ''
);
COMMENT ON TABLE modelmeter.rule_group IS 'Groups of rules that came over HTTP: the YAML of one group each. Those of files are not here.';

CREATE TABLE modelmeter.rule_evaluation (
    group_name text PRIMARY KEY,
    evaluated_at timestamptz NOT NULL
);
COMMENT ON TABLE modelmeter.rule_evaluation IS
    'Until when each group has been evaluated: a new leader goes on from here and misses no window.';

CREATE TABLE modelmeter.alert (
    group_name text NOT NULL,
    rule_name text NOT NULL,
    fingerprint uuid NOT NULL,
    labels jsonb NOT NULL,
    annotations jsonb NOT NULL,
    state text NOT NULL CHECK (state IN ('pending', 'firing')),
    value double precision,
    reason text NOT NULL,
    active_at timestamptz NOT NULL,
    fired_at timestamptz,
    -- Since when the condition no longer holds, while keep_firing_for keeps the alert.
    kept_since_at timestamptz,
    evaluated_at timestamptz NOT NULL,
    PRIMARY KEY (group_name, rule_name, fingerprint),
    CHECK ((state = 'firing') = (fired_at IS NOT NULL))
) WITH (fillfactor = 70);
COMMENT ON TABLE modelmeter.alert IS
    'Alerts that are pending or firing; an inactive one has no row. fingerprint is BLAKE2b of the labels, as in stream.';

CREATE TABLE modelmeter.alert_history (
    transition_id bigint GENERATED ALWAYS AS IDENTITY,
    at timestamptz NOT NULL,
    group_name text NOT NULL,
    rule_name text NOT NULL,
    fingerprint uuid NOT NULL,
    labels jsonb NOT NULL,
    from_state text NOT NULL CHECK (from_state IN ('inactive', 'pending', 'firing')),
    to_state text NOT NULL CHECK (to_state IN ('inactive', 'pending', 'firing')),
    reason text NOT NULL,
    value double precision,
    PRIMARY KEY (transition_id, at),
    -- The same alert cannot change to the same state twice at one time: whoever comes second loses.
    UNIQUE (group_name, rule_name, fingerprint, to_state, at)
) PARTITION BY RANGE (at);
COMMENT ON TABLE modelmeter.alert_history IS 'Every transition of every alert, with its value and reason.';
CREATE INDEX alert_history_at ON modelmeter.alert_history (at);
CREATE TABLE modelmeter.alert_history_default PARTITION OF modelmeter.alert_history DEFAULT;

CREATE TABLE modelmeter.notification (
    transition_id bigint PRIMARY KEY,
    at timestamptz NOT NULL,
    status text NOT NULL CHECK (status IN ('firing', 'resolved')),
    fingerprint uuid NOT NULL,
    labels jsonb NOT NULL,
    annotations jsonb NOT NULL,
    value double precision,
    reason text NOT NULL,
    starts_at timestamptz NOT NULL,
    ends_at timestamptz,
    CHECK ((status = 'resolved') = (ends_at IS NOT NULL))
);
COMMENT ON TABLE modelmeter.notification IS
    'What the dispatcher has not yet taken: one row for each transition to firing, and from firing to inactive.
     It is written in the transaction of the transition, and deleted in the one that groups it for delivery.';
