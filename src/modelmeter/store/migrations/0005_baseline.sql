-- Baselines: a name for the folded rollups of some streams in a span, copied, so that retention cannot take them.

CREATE TABLE modelmeter.baseline (
    name text PRIMARY KEY CHECK (name <> '' AND octet_length(name) <= 200),
    match text NOT NULL CHECK (match <> ''),
    start_at timestamptz NOT NULL,
    end_at timestamptz NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    created_by text NOT NULL DEFAULT '' CHECK (octet_length(created_by) <= 200),
    CHECK (start_at < end_at)
);
COMMENT ON TABLE modelmeter.baseline IS 'Names of references for drift: which events, whose copy baseline_rollup holds.';

CREATE TABLE modelmeter.baseline_rollup (
    baseline text NOT NULL REFERENCES modelmeter.baseline (name) ON DELETE CASCADE,
    metric_id integer NOT NULL,
    count bigint NOT NULL CHECK (count > 0),
    sum double precision NOT NULL,
    deviation double precision NOT NULL,
    min double precision NOT NULL,
    max double precision NOT NULL,
    first_at timestamptz NOT NULL,
    last_at timestamptz NOT NULL,
    last double precision NOT NULL,
    sketch bytea NOT NULL,
    PRIMARY KEY (baseline, metric_id)
);
COMMENT ON TABLE modelmeter.baseline_rollup IS
    'One fold for each metric of a baseline, over all its streams; metric id 0 counts the events.';
