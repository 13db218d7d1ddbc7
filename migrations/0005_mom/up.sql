-- What applications publish to and consume from. Messages are in RabbitMQ only.
--
-- A change is a row that says so, then RabbitMQ, then the row again. Whoever makes one has a claim: the
-- time until which it may act on RabbitMQ. A row goes only when nobody else has one, so that whoever is
-- late meets no later object of that name.

CREATE TABLE mom_users (
    id         uuid PRIMARY KEY,
    key_hash   bytea UNIQUE CHECK (octet_length(key_hash) = 32),
    created_at timestamptz NOT NULL DEFAULT now(),
    rotated_at timestamptz
);

CREATE INDEX mom_users_deleting ON mom_users (id) WHERE key_hash IS NULL;

COMMENT ON COLUMN mom_users.key_hash IS
    'SHA-256 of the key; null for a user who is deleted and still has subscriptions to be ended';

-- Names are ordered byte by byte.
CREATE TABLE mom_objects (
    kind           text COLLATE "C" NOT NULL CHECK (kind IN ('topic', 'queue')),
    name           text COLLATE "C" NOT NULL CHECK (octet_length(name) BETWEEN 1 AND 128),
    creator        uuid NOT NULL REFERENCES mom_users,
    max_length     bigint,
    message_ttl_ms bigint,
    delivery_limit integer,
    stage          text NOT NULL CHECK (stage IN ('creating', 'ready', 'deleting')),
    claims         timestamptz[] NOT NULL DEFAULT '{}',
    created_at     timestamptz NOT NULL DEFAULT now(),
    updated_at     timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (kind, name)
);

CREATE INDEX mom_objects_creator ON mom_objects (creator, kind, name);
CREATE INDEX mom_objects_unfinished ON mom_objects (updated_at) WHERE stage <> 'ready';

COMMENT ON COLUMN mom_objects.claims IS
    'until when each of those who are changing it may act on RabbitMQ';
COMMENT ON COLUMN mom_objects.updated_at IS 'when somebody last began or finished a change';

CREATE TABLE mom_subscriptions (
    kind       text COLLATE "C" NOT NULL,
    name       text COLLATE "C" NOT NULL,
    user_id    uuid NOT NULL REFERENCES mom_users,
    stage      text NOT NULL CHECK (stage IN ('creating', 'ready', 'deleting')),
    claims     timestamptz[] NOT NULL DEFAULT '{}',
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (kind, name, user_id),
    FOREIGN KEY (kind, name) REFERENCES mom_objects ON DELETE CASCADE
);

CREATE INDEX mom_subscriptions_user ON mom_subscriptions (user_id, kind, name);
CREATE INDEX mom_subscriptions_unfinished ON mom_subscriptions (updated_at) WHERE stage <> 'ready';

-- A publish is known by its idempotency key. Of a user who is gone it goes by its age, too.
CREATE TABLE mom_publishes (
    user_id      uuid NOT NULL,
    key_hash     bytea NOT NULL CHECK (octet_length(key_hash) = 32),
    message_id   uuid NOT NULL,
    receivers    integer NOT NULL,
    published_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (user_id, key_hash)
);

CREATE INDEX mom_publishes_published_at ON mom_publishes (published_at);
