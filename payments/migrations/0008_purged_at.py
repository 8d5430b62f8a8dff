"""When a purge deleted payments last: processors keep the bookings of what was sent until then."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("payments", "0007_purged_events"),
    ]

    operations = [
        migrations.AddField(
            model_name="stream",
            name="purged_at",
            field=models.DateTimeField(help_text="when a purge deleted payments last", null=True),
        ),
    ]
