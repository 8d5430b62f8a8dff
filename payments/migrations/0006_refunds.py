"""Refunds and disputes."""

from django.db import migrations


class Migration(migrations.Migration):
    dependencies = [("payments", "0005_processors")]

    operations: list = []
