"""What a processor of kind stripe needs: its reference, actions, keys; and what refunds and disputes write beside payments."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("payments", "0004_ledger_proofs"),
    ]

    operations = [
        migrations.AddField(
            model_name="attempt",
            name="action",
            field=models.JSONField(help_text="what the payer or the merchant has to do first", null=True),
        ),
        migrations.AddField(
            model_name="attempt",
            name="reference",
            field=models.CharField(db_default="", help_text="what the processor calls it", max_length=255),
        ),
        migrations.AddField(
            model_name="ledgerentry",
            name="cause",
            field=models.CharField(
                choices=[("payment", "Payment"), ("refund", "Refund"), ("dispute", "Dispute")],
                db_default="payment",
                max_length=10,
            ),
        ),
        migrations.AddField(
            model_name="ledgerentry",
            name="cause_id",
            field=models.BigIntegerField(help_text="the refund or dispute; a payment is its own cause", null=True),
        ),
        migrations.AddField(
            model_name="payment",
            name="canceling",
            field=models.BooleanField(db_default=False, help_text="a cancel is wanted where it was sent already"),
        ),
        migrations.AddField(
            model_name="payment",
            name="method",
            field=models.JSONField(
                help_text="how it is paid, where the sender says: never card data, only a reference", null=True
            ),
        ),
        migrations.AddField(
            model_name="payment",
            name="owed_back",
            field=models.BigIntegerField(db_default=0, help_text="refunds asked for and not failed; minor units"),
        ),
        migrations.AddField(
            model_name="paymentevent",
            name="kind",
            field=models.CharField(db_default="", max_length=30),
        ),
        migrations.AddField(
            model_name="paymentevent",
            name="subject_id",
            field=models.BigIntegerField(null=True),
        ),
        migrations.AddField(
            model_name="processor",
            name="secrets",
            field=models.BinaryField(help_text="keys, sealed: registry.tenants.encryption", null=True),
        ),
    ]
