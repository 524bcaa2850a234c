-- What the keeper that evaluates has loaded, so that every process can show it.

CREATE TABLE modelmeter.loaded_group (
    name text PRIMARY KEY,
    position integer NOT NULL,
    origin text NOT NULL,
    interval_seconds double precision NOT NULL CHECK (interval_seconds > 0),
    rule_limit integer NOT NULL DEFAULT 0,
    rules jsonb NOT NULL,
    loaded_at timestamptz NOT NULL DEFAULT now(),
    evaluated_at timestamptz,
    evaluation_seconds double precision,
    -- One for each of rules, as of the last evaluation; an empty error is none.
    rule_seconds double precision[] NOT NULL DEFAULT '{}',
    rule_errors text[] NOT NULL DEFAULT '{}'
);
COMMENT ON TABLE modelmeter.loaded_group IS
    'The groups of rules in use, those of files and those that came over HTTP, and how their last evaluation went.';

CREATE INDEX alert_history_rule ON modelmeter.alert_history (rule_name, at);
