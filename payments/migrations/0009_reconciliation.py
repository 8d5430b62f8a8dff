"""What processors' books and ours differ in."""

from django.db import migrations


class Migration(migrations.Migration):
    dependencies = [("payments", "0008_outbound_webhooks")]

    operations: list = []
