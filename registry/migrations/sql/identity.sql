-- The name of the service, made once: the prefix of its keys and channels in Redis. A copy of the database keeps the name.
CREATE TABLE IF NOT EXISTS registry_identity (
    single boolean PRIMARY KEY DEFAULT true CHECK (single),
    name text DEFAULT left(replace(gen_random_uuid()::text, '-', ''), 12) CHECK (name <> '')
);
INSERT INTO registry_identity DEFAULT VALUES ON CONFLICT DO NOTHING;
