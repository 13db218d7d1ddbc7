-- Text is compared byte by byte, as the worker compares it: both must find the same maximum.
-- Attributes are null for an agent of which only the end of a session has arrived.
CREATE TABLE agents (
    id           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    uuid         text COLLATE "C" NOT NULL UNIQUE,
    username     text COLLATE "C",
    name         text COLLATE "C",
    hostname     text COLLATE "C",
    pid          integer,
    connected    boolean NOT NULL,
    session      uuid NOT NULL,
    gateway      text COLLATE "C" NOT NULL,
    created_at   timestamptz NOT NULL DEFAULT now(),
    updated_at   timestamptz NOT NULL DEFAULT now(),
    last_seen_at timestamptz
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.05);
-- Half of each page stays free, so that the update which every batch brings finds room beside the
-- old version and leaves the indexes alone.

-- For the sweep: which gateways have connected agents, and which agents those are.
CREATE INDEX agents_connected_gateway ON agents (gateway) WHERE connected;

COMMENT ON COLUMN agents.session IS 'the newest session that reported for the agent';
COMMENT ON COLUMN agents.gateway IS 'the gateway instance that has, or had, this session';
COMMENT ON COLUMN agents.last_seen_at IS 'when a gateway last received something from the agent';
