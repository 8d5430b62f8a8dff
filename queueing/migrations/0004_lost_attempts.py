"""Attempts that were lost with their worker are counted apart from those that failed."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("queueing", "0003_callbacks")]

    operations = [
        migrations.AddField(
            model_name="job",
            name="lost_attempts",
            field=models.IntegerField(
                db_default=0, help_text="attempts that do not count either: their worker was killed; a retry resets it"
            ),
        ),
    ]
