"""The address to which a payer goes back."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("payments", "0001_initial"),
    ]

    operations = [
        migrations.AddField(
            model_name="payment",
            name="return_url",
            field=models.CharField(
                blank=True, db_default="", default="", help_text="where the payer goes back to", max_length=2000
            ),
        ),
    ]
