"""The files for Prometheus and Grafana: in step with the rules, accepted by promtool, and over metrics that exist."""

import json
import re
import shutil
import subprocess
from io import StringIO
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command

from registry.operators.alerts import exports
from registry.operators.alerts.dashboard import ROWS
from registry.operators.alerts.prometheus import promql, rule_file
from registry.operators.alerts.rules import AlertRule, Scope, rules
from registry.operators.attention import Severity
from tests.metric_names import metric_names

DOCS = Path(__file__).parents[2] / "docs" / "operators"
FILES = exports.files(exports.EXAMPLE_URL)
PROMTOOL = shutil.which("promtool")
WITHIN = 60.0  # seconds for promtool
needs_promtool = pytest.mark.skipif(PROMTOOL is None, reason="promtool is not on PATH (Debian has it in `prometheus`)")


def rule(expression: str, scope: Scope = "service") -> AlertRule:
    return AlertRule(
        name="a.rule", expression=expression, for_=90, severity=Severity.WARNING, scope=scope, sentence="It is “so”."
    )


@pytest.mark.parametrize("name", FILES)
def test_the_files_of_the_documents_are_those_that_are_exported(name: str):
    assert (DOCS / name).read_text() == FILES[name], (
        "write them again: manage.py alerts --export docs/operators --url https://registry.example.com"
    )


def test_files_are_written_with_the_services_own_address_in_links_to_the_runbook(tmp_path: Path):
    said = StringIO()

    call_command("alerts", export=tmp_path, url="https://pay.example/", stdout=said)

    assert said.getvalue() == "".join(f"{tmp_path / name} written\n" for name in FILES)
    assert '"https://pay.example/admin/runbook/#workers"' in (tmp_path / "prometheus-rules.yml").read_text()


def test_a_folder_that_does_not_exist_is_refused(tmp_path: Path):
    with pytest.raises(CommandError, match=r"cannot be written into .*: No such file or directory"):
        call_command("alerts", export=tmp_path / "nowhere")


# -- Prometheus ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("expression", "scope", "wanted"),
    [
        ("max(a) > 1", "service", "max by (job) (a) > 1"),
        ("min(a) < 0.05", "host", "min by (job, instance) (a) < 0.05"),
        ('sum(a{b="c", d!="e"}) > 0', "service", 'sum by (job) (max without (instance) (a{b="c", d!="e"})) > 0'),
        ("sum(a) > 0", "host", "sum by (job, instance) (a) > 0"),
        ("avg(a) >= 2", "service", "avg by (job) (max without (instance) (a)) >= 2"),
        ("min(a[15s]) > 0", "host", "min_over_time(min by (job, instance) (a)[15s:5s]) > 0"),
        ("increase(a_total[5m]) > 50", "host", "sum by (job, instance) (increase(a_total[5m])) > 50"),
        ('rate(a_total{b="c"}[90s]) > 2', "host", 'sum by (job, instance) (rate(a_total{b="c"}[90s])) > 2'),
    ],
)
def test_each_form_of_an_expression_has_its_promql(expression: str, scope: Scope, wanted: str):
    assert promql(rule(expression, scope)) == wanted


def test_every_rule_is_in_the_file_with_its_condition_and_its_section_of_the_runbook():
    text = rule_file("https://pay.example")

    names = re.findall(r'- alert: "(.+)"', text)
    assert names == [*(one.name for one in rules()), "unreachable"]
    for one in rules():
        assert json.dumps(promql(one)) in text
        assert f'runbook_url: "https://pay.example/admin/runbook/#{one.runbook}"' in text


def promtool(*arguments: str, folder: Path) -> str:
    assert PROMTOOL
    done = subprocess.run([PROMTOOL, *arguments], cwd=folder, capture_output=True, text=True, timeout=WITHIN)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@needs_promtool
def test_promtool_accepts_the_file(tmp_path: Path):
    exports.write(tmp_path, exports.EXAMPLE_URL)

    said = promtool("check", "rules", "prometheus-rules.yml", folder=tmp_path)

    assert f"SUCCESS: {len(rules()) + 1} rules found" in said


SERIES = """\
rule_files: [prometheus-rules.yml]
evaluation_interval: 5s
tests:
  - interval: 5s
    input_series:
      - series: 'registry_processors_down{job="registry", instance="a", how="open"}'
        values: '0 1x20 0x20'
      - series: 'registry_processors_down{job="registry", instance="b", how="open"}'
        values: '0 1x20 0x20'
      - series: 'registry_redis_takes_writes{job="registry", instance="a", use="limits"}'
        values: '1 0x20 1x20'
      - series: 'registry_redis_takes_writes{job="registry", instance="b", use="limits"}'
        values: '1x41'
    alert_rule_test:
      - eval_time: 30s
        alertname: processors.down
      - eval_time: 60s
        alertname: processors.down
        exp_alerts: [{exp_labels: {job: registry, severity: critical, scope: service}, exp_annotations: DOWN}]
      - eval_time: 60s
        alertname: redis
        exp_alerts: [{exp_labels: {job: registry, instance: a, severity: warning, scope: host}, exp_annotations: REDIS}]
      - eval_time: 190s
        alertname: processors.down
"""


@needs_promtool
def test_prometheus_fires_once_for_the_service_and_once_for_the_host_in_trouble(tmp_path: Path):
    exports.write(tmp_path, exports.EXAMPLE_URL)
    text = SERIES
    for word, name in (("DOWN", "processors.down"), ("REDIS", "redis")):
        [one] = [one for one in rules() if one.name == name]
        url = f"{exports.EXAMPLE_URL}/admin/runbook/#{one.runbook}"
        text = text.replace(word, json.dumps({"summary": one.sentence, "runbook_url": url}))
    (tmp_path / "test.yml").write_text(text)

    assert "SUCCESS" in promtool("test", "rules", "test.yml", folder=tmp_path)


# -- Grafana ---------------------------------------------------------------------------------------------------------

DASHBOARD: dict[str, Any] = json.loads(FILES["grafana-dashboard.json"])
CHARTS = [one for one in DASHBOARD["panels"] if one["type"] != "row"]
QUERIES = {f"{one['title']} {target['refId']}": target["expr"] for one in CHARTS for target in one["targets"]}


async def test_every_query_of_the_dashboard_reads_metrics_that_exist():
    known = await metric_names()

    missing = {
        name: unknown
        for name, query in QUERIES.items()
        if (unknown := set(re.findall(r"\bregistry_\w+|\bqueen_\w+", query)) - known)
    }
    assert missing == {}
    assert all(re.search(r"\bregistry_\w+", query) for query in QUERIES.values())


def test_the_dashboard_has_a_row_for_each_part_and_its_source_is_a_variable():
    rows = [one["title"] for one in DASHBOARD["panels"] if one["type"] == "row"]

    assert rows == list(ROWS)
    assert {one["datasource"]["uid"] for one in CHARTS} == {"${datasource}"}
    assert [one["name"] for one in DASHBOARD["templating"]["list"]] == ["datasource", "job"]
    assert all('job=~"$job"' in query for query in QUERIES.values())
    assert len({one["id"] for one in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])


def test_no_panel_of_the_dashboard_covers_another():
    places = [one["gridPos"] for one in DASHBOARD["panels"]]

    assert [
        (a, b)
        for a, b in combinations(places, 2)
        if a["x"] < b["x"] + b["w"]
        and b["x"] < a["x"] + a["w"]
        and a["y"] < b["y"] + b["h"]
        and b["y"] < a["y"] + a["h"]
    ] == []
    assert all(place["x"] + place["w"] <= 24 for place in places)


@needs_promtool
def test_promtool_reads_every_query_of_the_dashboard(tmp_path: Path):
    lines = ["groups:", "  - name: dashboard", "    rules:"]
    for number, query in enumerate(QUERIES.values()):
        whole = query.replace("$__rate_interval", "5m")
        lines += [f"      - record: panel:{number}", f"        expr: {json.dumps(whole)}"]
    (tmp_path / "dashboard.yml").write_text("\n".join(lines) + "\n")

    assert f"{len(QUERIES)} rules found" in promtool("check", "rules", "dashboard.yml", folder=tmp_path)
