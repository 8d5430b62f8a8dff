"""Whether a processor's address must be on the public internet."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("payments", "0002_return_url"),
    ]

    operations = [
        migrations.AddField(
            model_name="processor",
            name="public_only",
            field=models.BooleanField(
                db_default=False,
                default=False,
                help_text="its address must be on the public internet: it was entered by a merchant, not by an operator of the service",
            ),
        ),
    ]
