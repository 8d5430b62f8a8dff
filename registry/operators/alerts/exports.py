"""Writes the files for Prometheus and Grafana that are made from the alert rules and the metrics: `manage.py alerts --export`."""

from pathlib import Path

from registry.operators.alerts.dashboard import dashboard
from registry.operators.alerts.prometheus import rule_file

EXAMPLE_URL = "https://registry.example.com"  # in the files of docs/operators


def files(url: str) -> dict[str, str]:
    """The texts by file name; `url` is the public address of the service."""
    return {"prometheus-rules.yml": rule_file(url), "grafana-dashboard.json": dashboard()}


def write(folder: Path, url: str) -> list[Path]:
    """Write the files into a folder that exists; returns their paths. Raises OSError."""
    written = []
    for name, text in files(url).items():
        (path := folder / name).write_text(text)
        written.append(path)
    return written
