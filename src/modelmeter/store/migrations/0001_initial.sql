-- The schema of modelmeter. Instants are timestamptz, UTC; windows and spans are half-open.

CREATE TABLE modelmeter.metric (
    metric_id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name text NOT NULL UNIQUE CHECK (name <> '')
);
COMMENT ON TABLE modelmeter.metric IS 'Metric names. Metric id 0 is not here: its rollups count the events themselves.';

CREATE TABLE modelmeter.stream (
    stream_id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    fingerprint uuid NOT NULL UNIQUE,
    name text NOT NULL CHECK (name <> ''),
    version text NOT NULL CHECK (version <> ''),
    labels jsonb NOT NULL,
    -- What the compactor has folded so far; the partials hold the rest.
    events bigint NOT NULL DEFAULT 0 CHECK (events >= 0),
    first_at timestamptz,
    last_at timestamptz,
    CHECK ((events = 0) = (first_at IS NULL) AND (events = 0) = (last_at IS NULL)),
    CHECK (labels ->> 'name' = name AND labels ->> 'version' = version)
) WITH (fillfactor = 80);
COMMENT ON TABLE modelmeter.stream IS 'Sets of labels. fingerprint is BLAKE2b of them, since they can be too long for an index.';
CREATE INDEX stream_name_version ON modelmeter.stream (name, version);

CREATE TABLE modelmeter.chunk (
    stream_id integer NOT NULL,
    start_at timestamptz NOT NULL,
    end_at timestamptz NOT NULL,
    stored_at timestamptz NOT NULL DEFAULT now(),
    count integer NOT NULL CHECK (count > 0),
    minutely boolean NOT NULL,
    metrics integer[] NOT NULL,
    columns bytea[] NOT NULL,
    CHECK (start_at < end_at),
    CHECK (cardinality(columns) = cardinality(metrics) + 1)
) PARTITION BY RANGE (start_at);
COMMENT ON TABLE modelmeter.chunk IS
    'Raw events of a stream within one UTC day: columns[1] the timestamps, then one column for each of metrics, packed.
     minutely: the events are in rollup_1m as well; those of slow streams are only in rollup_1h and rollup_1d.';
CREATE INDEX chunk_stream ON modelmeter.chunk (stream_id, start_at);
ALTER TABLE modelmeter.chunk ALTER columns SET STORAGE EXTERNAL;

-- One shape for partials and for each resolution.
CREATE TABLE modelmeter.rollup_partial_1m (
    stream_id integer NOT NULL,
    metric_id integer NOT NULL,
    window_start timestamptz NOT NULL,
    count bigint NOT NULL CHECK (count > 0),
    sum double precision NOT NULL,
    deviation double precision NOT NULL,
    min double precision NOT NULL,
    max double precision NOT NULL,
    first_at timestamptz NOT NULL,
    last_at timestamptz NOT NULL,
    last double precision NOT NULL,
    sketch bytea NOT NULL
) WITH (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 5000);
COMMENT ON TABLE modelmeter.rollup_partial_1m IS
    'Partials of one minute, as the workers write them; the compactor moves them into rollup_1m, rollup_1h and rollup_1d.';
CREATE INDEX rollup_partial_1m_window ON modelmeter.rollup_partial_1m (stream_id, window_start);

CREATE TABLE modelmeter.rollup_partial_1h (LIKE modelmeter.rollup_partial_1m INCLUDING CONSTRAINTS)
    WITH (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 5000);
COMMENT ON TABLE modelmeter.rollup_partial_1h IS
    'Partials of one hour, of slow streams; the compactor moves them into rollup_1h and rollup_1d.';
CREATE INDEX rollup_partial_1h_window ON modelmeter.rollup_partial_1h (stream_id, window_start);

CREATE VIEW modelmeter.rollup_partial AS
SELECT * FROM modelmeter.rollup_partial_1m UNION ALL SELECT * FROM modelmeter.rollup_partial_1h;
COMMENT ON VIEW modelmeter.rollup_partial IS 'All that the compactor has not folded yet.';

CREATE TABLE modelmeter.rollup_1m (LIKE modelmeter.rollup_partial_1m INCLUDING CONSTRAINTS,
    PRIMARY KEY (stream_id, metric_id, window_start)) PARTITION BY RANGE (window_start);
CREATE TABLE modelmeter.rollup_1h (LIKE modelmeter.rollup_partial_1m INCLUDING CONSTRAINTS,
    PRIMARY KEY (stream_id, metric_id, window_start)) PARTITION BY RANGE (window_start);
CREATE TABLE modelmeter.rollup_1d (LIKE modelmeter.rollup_partial_1m INCLUDING CONSTRAINTS,
    PRIMARY KEY (stream_id, metric_id, window_start)) PARTITION BY RANGE (window_start);
COMMENT ON TABLE modelmeter.rollup_1m IS 'Folded rollups, one row for each series and minute.';
COMMENT ON TABLE modelmeter.rollup_1h IS 'Folded rollups, one row for each series and hour.';
COMMENT ON TABLE modelmeter.rollup_1d IS 'Folded rollups, one row for each series and UTC day.';

CREATE TABLE modelmeter.ledger (
    batch_id uuid PRIMARY KEY,
    stored_at timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE modelmeter.ledger IS 'The ids of what is stored: an id that is here is not stored again.';
CREATE INDEX ledger_stored_at ON modelmeter.ledger USING brin (stored_at);

CREATE TABLE modelmeter.dead_letter (
    dead_letter_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    died_at timestamptz NOT NULL DEFAULT now(),
    reason text NOT NULL,
    events integer NOT NULL,
    payload bytea NOT NULL
);
COMMENT ON TABLE modelmeter.dead_letter IS 'Messages that could not be stored, whole, with the reason.';

-- The queue. Slots are emptied by TRUNCATE, in turn by the clock, so that no vacuum has to follow the load.
CREATE TABLE modelmeter.queue (
    slot smallint NOT NULL DEFAULT (floor(extract(epoch FROM clock_timestamp()) / 30)::bigint % 4)::smallint,
    message_id bigint GENERATED ALWAYS AS IDENTITY,
    enqueued_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    attempts smallint NOT NULL DEFAULT 0,
    events integer NOT NULL CHECK (events >= 0),
    bytes integer NOT NULL,
    payload bytea NOT NULL,
    PRIMARY KEY (message_id, slot)
) PARTITION BY LIST (slot);
COMMENT ON TABLE modelmeter.queue IS 'One row is a message: hundreds or thousands of events, packed.';
ALTER TABLE modelmeter.queue ALTER payload SET STORAGE EXTERNAL;
CREATE TABLE modelmeter.queue_0 PARTITION OF modelmeter.queue FOR VALUES IN (0);
CREATE TABLE modelmeter.queue_1 PARTITION OF modelmeter.queue FOR VALUES IN (1);
CREATE TABLE modelmeter.queue_2 PARTITION OF modelmeter.queue FOR VALUES IN (2);
CREATE TABLE modelmeter.queue_3 PARTITION OF modelmeter.queue FOR VALUES IN (3);
