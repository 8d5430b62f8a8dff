"""The share of a tenant's payments that are traced."""

import django.core.validators
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("registry", "0005_alerts")]

    operations = [
        migrations.AddField(
            model_name="tenant",
            name="trace_rate",
            field=models.FloatField(
                blank=True,
                help_text="share of its payments that are traced, from 0 to 1; empty: the service's TRACE_SAMPLE_RATE",
                null=True,
                validators=[
                    django.core.validators.MinValueValidator(0),
                    django.core.validators.MaxValueValidator(1),
                ],
            ),
        ),
    ]
