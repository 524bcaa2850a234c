-- Parts of messages that were over the limit of a queue outside, until all parts of a message are there.
CREATE TABLE modelmeter.queue_part (
    message_id uuid NOT NULL,
    number integer NOT NULL CHECK (number >= 0),
    arrived_at timestamptz NOT NULL DEFAULT now(),
    events integer NOT NULL CHECK (events >= 0),
    payload bytea NOT NULL,
    PRIMARY KEY (message_id, number)
);
COMMENT ON TABLE modelmeter.queue_part IS
    'Parts of messages that are over the limit of a queue outside. The last part to come takes the others from here.';
CREATE INDEX queue_part_arrived_at ON modelmeter.queue_part USING brin (arrived_at);
ALTER TABLE modelmeter.queue_part ALTER payload SET STORAGE EXTERNAL;
