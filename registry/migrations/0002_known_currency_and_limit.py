"""What a tenant's currency and limit mean. Words and checks of the code: the database has nothing to do."""

from django.db import migrations, models

import registry.currencies


class Migration(migrations.Migration):
    dependencies = [("registry", "0001_initial")]

    operations = [
        migrations.SeparateDatabaseAndState(
            state_operations=[
                migrations.AlterField(
                    model_name="tenant",
                    name="currency",
                    field=models.CharField(
                        default="BRL",
                        help_text="ISO 4217, used where a payment names none",
                        max_length=3,
                        validators=[registry.currencies.known_currency],
                    ),
                ),
                migrations.AlterField(
                    model_name="tenant",
                    name="max_amount",
                    field=models.BigIntegerField(
                        blank=True,
                        help_text="No payment may be larger. In minor units of the payment's own currency, "
                        "whichever that is: 10000 is 100.00 BRL and also 10,000 JPY.",
                        null=True,
                    ),
                ),
            ]
        )
    ]
