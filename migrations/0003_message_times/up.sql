-- A message that its sender named but did not date has the time of its receipt, which is another
-- one when it is sent again: the primary key of metrics does not know it then, this one does. Its
-- row is written in the transaction that stores its metrics.
CREATE TABLE message_times (
    message_id uuid PRIMARY KEY,
    timestamp  timestamptz NOT NULL
);

-- What is stored already: a message that was not dated has the time of its receipt. The ids that
-- gateways gave are among them, since nothing tells them apart; no sender repeats those.
INSERT INTO message_times (message_id, timestamp)
SELECT message_id, min(timestamp) FROM metrics
WHERE ordinal = 0 AND timestamp = received_at
GROUP BY message_id;

-- Both for the upkeep: what is too old goes, and a new partition's rows leave the default one.
CREATE INDEX message_times_timestamp ON message_times (timestamp);
CREATE INDEX metrics_default_timestamp ON metrics_default (timestamp);

COMMENT ON TABLE message_times IS 'when messages with an id but without a timestamp first arrived';
