-- Retention by class, and corrections.

CREATE TABLE modelmeter.retention_class (
    class smallint PRIMARY KEY CHECK (class > 0),
    name text NOT NULL UNIQUE CHECK (name <> ''),
    keep jsonb NOT NULL
);
COMMENT ON TABLE modelmeter.retention_class IS
    'Classes of retention, as the settings had them last: seconds by resolution, null for ever. Class 0 has no row.';

ALTER TABLE modelmeter.stream ADD class smallint NOT NULL DEFAULT 0;
COMMENT ON COLUMN modelmeter.stream.class IS 'Given when the stream is first seen, and kept.';

CREATE TABLE modelmeter.retired (
    class smallint NOT NULL,
    resolution text NOT NULL CHECK (resolution IN ('raw', '1m', '1h', '1d')),
    until timestamptz NOT NULL,
    PRIMARY KEY (class, resolution)
);
COMMENT ON TABLE modelmeter.retired IS
    'Before `until`, this resolution of the streams of this class is no longer whole, and nothing is written to it.
     It moves first, partitions are dropped after. No row: all is whole.';

-- Partitions may themselves be partitioned by class; a unique key must have the column then.
ALTER TABLE modelmeter.chunk ADD class smallint NOT NULL DEFAULT 0;
ALTER TABLE modelmeter.rollup_1m ADD class smallint NOT NULL DEFAULT 0,
    DROP CONSTRAINT rollup_1m_pkey, ADD PRIMARY KEY (stream_id, metric_id, window_start, class);
ALTER TABLE modelmeter.rollup_1h ADD class smallint NOT NULL DEFAULT 0,
    DROP CONSTRAINT rollup_1h_pkey, ADD PRIMARY KEY (stream_id, metric_id, window_start, class);
ALTER TABLE modelmeter.rollup_1d ADD class smallint NOT NULL DEFAULT 0,
    DROP CONSTRAINT rollup_1d_pkey, ADD PRIMARY KEY (stream_id, metric_id, window_start, class);

-- When the row was written, not when its transaction began: corrections tell by it what was there before them.
ALTER TABLE modelmeter.chunk ALTER stored_at SET DEFAULT clock_timestamp();

CREATE TABLE modelmeter.correction (
    correction_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    kind text NOT NULL CHECK (kind IN ('delete', 'replace')),
    -- Events that were received before this, by the clock of the API, are corrected: stored ones, and later those that
    -- are stored later.
    received_at timestamptz NOT NULL,
    -- By the clock of the database: chunks that were stored before this are corrected.
    recorded_at timestamptz NOT NULL,
    applied_at timestamptz,
    match text,
    fingerprints uuid[],
    start_at timestamptz NOT NULL,
    end_at timestamptz NOT NULL,
    author text NOT NULL,
    reason text NOT NULL,
    streams integer NOT NULL DEFAULT 0,
    removed bigint NOT NULL DEFAULT 0 CHECK (removed >= 0),
    added bigint NOT NULL DEFAULT 0 CHECK (added >= 0),
    CHECK (start_at < end_at),
    CHECK ((match IS NULL) <> (fingerprints IS NULL))
);
COMMENT ON TABLE modelmeter.correction IS
    'Who had which events removed or replaced, and when. Streams are named by a selector, or by fingerprint.';
CREATE INDEX correction_received_at ON modelmeter.correction (received_at);
CREATE INDEX correction_pending ON modelmeter.correction (correction_id) WHERE applied_at IS NULL;
