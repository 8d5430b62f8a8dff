"""What workers report of their child processes."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("queueing", "0007_jobs_unique_key"),
    ]

    operations = [
        migrations.AddField(
            model_name="worker",
            name="processes",
            field=models.IntegerField(db_default=0, help_text="child processes that run rows now"),
        ),
        migrations.AddField(
            model_name="worker",
            name="places",
            field=models.IntegerField(
                db_default=0,
                help_text="places for child processes; tenants that hold none get further ones. 0: rows need none",
            ),
        ),
    ]
