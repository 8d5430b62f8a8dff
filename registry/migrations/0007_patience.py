"""For how long a tenant's payments wait for a lower fee."""

from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("registry", "0006_identity")]

    operations = [
        migrations.AddField(
            model_name="tenant",
            name="patience",
            field=models.PositiveIntegerField(
                blank=True,
                db_default=300,
                default=300,
                help_text=(
                    "Milliseconds for which a lower fee is worth waiting: a payment goes to the cheapest processor that "
                    "answers within it."
                ),
                validators=[MinValueValidator(1), MaxValueValidator(60000)],
            ),
        ),
    ]
