"""The alert rules as a rule file of Prometheus, docs/operators/prometheus-rules.yml.

Prometheus sees each web process's host as an instance. Values of scope `service` are read from PostgreSQL, so that every instance
shows the same: sums and averages take each label set once. Rules are evaluated for each job apart, so that one Prometheus may watch
several installations. docs/operators/monitoring.md says where both evaluations differ.
"""

import json
from collections.abc import Iterator

from registry.operators.alerts.expressions import Aggregate, duration, shown
from registry.operators.alerts.rules import KEEP_FIRING, AlertRule, rules

STEP = "5s"  # of subqueries; Prometheus repeats the latest sample between two scrapes
SCRAPE_GAP = 60  # seconds without an answer to a scrape
HEAD = """\
# Alert rules of Registry for Prometheus 2.42 or newer, made by `manage.py alerts --export`: change the rules there, not here.
# How to load them, and how they differ from the alerts of the service itself: docs/operators/monitoring.md
"""


def promql(rule: AlertRule) -> str:
    """The rule's condition in PromQL."""
    condition = rule.condition
    by = "(job)" if rule.scope == "service" else "(job, instance)"
    labels = f"{{{', '.join(map(str, condition.matchers))}}}" if condition.matchers else ""
    selected = f"{condition.metric}{labels}"
    window = f"[{duration(condition.window)}]" if condition.window else ""
    if condition.aggregate.is_of_counters:
        value = f"sum by {by} ({condition.aggregate}({selected}{window}))"
    else:
        if rule.scope == "service" and condition.aggregate in (Aggregate.SUM, Aggregate.AVG):
            selected = f"max without (instance) ({selected})"
        value = f"{condition.aggregate} by {by} ({selected})"
        if window:
            value = f"{condition.aggregate}_over_time({value}{window[:-1]}:{STEP}])"
    return f"{value} {condition.relation} {shown(condition.number)}"


def rule_file(url: str) -> str:
    """The file's text; `url` is the public address of the service, in links to the runbook."""
    lines = [*HEAD.splitlines(), "groups:", "  - name: registry", "    rules:"]
    for rule in rules():
        lines += _lines(
            rule.name,
            promql(rule),
            rule.for_,
            {"severity": rule.severity.name.lower(), "scope": rule.scope},
            {"summary": rule.sentence, "runbook_url": f"{url.rstrip('/')}/admin/runbook/#{rule.runbook}"},
            keep=KEEP_FIRING,
        )
    lines += [
        "  # The only one that the service cannot evaluate itself. The name of the job is that of your scrape configuration."
    ]
    lines += ["  - name: registry-scrape", "    rules:"]
    lines += _lines(
        "unreachable",
        'up{job="registry"} == 0',
        SCRAPE_GAP,
        {"severity": "critical", "scope": "host"},
        {"summary": "Nothing answers on a host of Registry: no payment is accepted there."},
    )
    return "\n".join(lines) + "\n"


def _lines(
    name: str, expression: str, for_: int, labels: dict[str, str], annotations: dict[str, str], *, keep: int = 0
) -> Iterator[str]:
    """A rule in YAML. Its texts are strings of JSON, which YAML reads alike."""
    yield f"      - alert: {json.dumps(name)}"
    yield f"        expr: {json.dumps(expression)}"
    if for_:
        yield f"        for: {duration(for_)}"
    if keep:
        yield f"        keep_firing_for: {duration(keep)}"
    for title, values in (("labels", labels), ("annotations", annotations)):
        yield f"        {title}:"
        yield from (f"          {key}: {json.dumps(value, ensure_ascii=False)}" for key, value in values.items())
