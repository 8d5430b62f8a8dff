"""Why a live tenant's payments are refused."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("registry", "0004_modes")]

    operations = [
        migrations.AddField(
            model_name="tenant",
            name="blocked",
            field=models.CharField(
                blank=True,
                db_default="",
                help_text="why its payments are refused where it is live, as the sender is told; empty: they are not",
                max_length=200,
            ),
        ),
    ]
