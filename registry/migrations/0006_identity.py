"""The service's name, made once: what its keys and channels in Redis begin with. A copy of the database keeps it."""

from django.db import migrations

MAKE = """
CREATE TABLE IF NOT EXISTS registry_identity (
    single boolean PRIMARY KEY DEFAULT true CHECK (single),
    name text DEFAULT left(replace(gen_random_uuid()::text, '-', ''), 12) CHECK (name <> '')
);
INSERT INTO registry_identity DEFAULT VALUES ON CONFLICT DO NOTHING;
"""


class Migration(migrations.Migration):
    dependencies = [("registry", "0005_blocked")]

    # On the way back it stays: what waits in Redis is found by this name only.
    operations = [migrations.RunSQL(MAKE, migrations.RunSQL.noop)]
