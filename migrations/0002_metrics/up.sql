-- agent_id refers to agents.id. A foreign key would lock the agent's row for each metric, and make
-- the writers of different batches wait for each other.
CREATE TABLE metrics (
    agent_id    bigint NOT NULL,
    type        text NOT NULL,
    value       double precision,
    text_value  text,
    timestamp   timestamptz NOT NULL,
    received_at timestamptz NOT NULL,
    message_id  uuid NOT NULL,
    ordinal     smallint NOT NULL,
    PRIMARY KEY (message_id, ordinal, timestamp)
) PARTITION BY RANGE (timestamp);

CREATE INDEX metrics_agent_type_timestamp ON metrics (agent_id, type, timestamp DESC);

-- Days without a partition of their own: long ago, or not made yet.
CREATE TABLE metrics_default PARTITION OF metrics DEFAULT;

COMMENT ON COLUMN metrics.value IS 'the value as a number; null for a text that is none';
COMMENT ON COLUMN metrics.text_value IS 'the value as it was sent, if it was a text or a boolean';
COMMENT ON COLUMN metrics.timestamp IS 'when it was measured, as the sender says, else received_at';
COMMENT ON COLUMN metrics.ordinal IS 'the position in the message, from 0';
