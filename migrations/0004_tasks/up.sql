-- The id is the event's own: delivered again, it is known.
CREATE TABLE events (
    id          uuid PRIMARY KEY,
    name        text NOT NULL,
    source      text,
    payload     jsonb NOT NULL,
    occurred_at timestamptz NOT NULL,
    received_at timestamptz NOT NULL
);

CREATE INDEX events_name_occurred_at ON events (name, occurred_at DESC);
CREATE INDEX events_occurred_at ON events (occurred_at DESC);

COMMENT ON COLUMN events.occurred_at IS 'when it happened, as the sender says, else received_at';
COMMENT ON COLUMN events.received_at IS 'when a worker received it';

-- A part of each page stays free, so that a command's next states find room beside the first one.
-- No index knows the state itself: they leave the indexes alone, but for the last one.
CREATE TABLE commands (
    id           uuid PRIMARY KEY,
    name         text NOT NULL,
    target       text,
    payload      jsonb NOT NULL,
    state        text NOT NULL CHECK
        (state IN ('queued', 'sent', 'delivered', 'succeeded', 'failed', 'timed_out')),
    attempts     integer NOT NULL,
    result       jsonb,
    error        text,
    created_at   timestamptz NOT NULL,
    updated_at   timestamptz NOT NULL,
    sent_at      timestamptz,
    delivered_at timestamptz,
    ended_at     timestamptz,
    expires_at   timestamptz,
    -- Who looks for commands that are not ended asks for ended_at.
    CONSTRAINT commands_ended_at_check CHECK
        ((ended_at IS NOT NULL) = (state IN ('succeeded', 'failed', 'timed_out')))
) WITH (fillfactor = 70);

CREATE INDEX commands_created_at ON commands (created_at DESC, id DESC);
CREATE INDEX commands_target_created_at ON commands (target, created_at DESC, id DESC);
-- What a target has still to do, and what has waited for too long: both stay small.
CREATE INDEX commands_open_target ON commands (target, created_at, id) WHERE ended_at IS NULL;
CREATE INDEX commands_open_expires_at ON commands (expires_at)
    WHERE ended_at IS NULL AND expires_at IS NOT NULL;

COMMENT ON COLUMN commands.target IS 'for whom it is, such as the uuid of an agent';
COMMENT ON COLUMN commands.state IS 'the furthest that is known';
COMMENT ON COLUMN commands.attempts IS 'the greatest number of an attempt';
COMMENT ON COLUMN commands.result IS 'what was answered';
COMMENT ON COLUMN commands.updated_at IS 'when the row last changed, by the clock of the database';
COMMENT ON COLUMN commands.sent_at IS 'when it was first sent; the other times are first ones, too';
COMMENT ON COLUMN commands.delivered_at IS
    'when its delivery was confirmed, which may be after it has ended';
COMMENT ON COLUMN commands.expires_at IS 'when it is given up, unless it has ended; null is never';
