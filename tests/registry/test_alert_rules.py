"""Rules of alerts: the grammar of their expressions, what is refused, and that each rule names a metric that exists."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.operators.alerts import rules
from registry.operators.alerts.expressions import (
    LONGEST_WINDOW,
    Aggregate,
    BadExpression,
    Expression,
    Matcher,
    Relation,
)
from registry.operators.alerts.rules import AlertRule, BadRule, register
from registry.operators.attention import Severity
from tests.metric_names import metric_names

GAUGES = [one for one in Aggregate if not one.is_of_counters]
LABELS = st.from_regex(r"[a-zA-Z_][a-zA-Z0-9_]{0,8}", fullmatch=True)
MATCHERS = st.lists(st.builds(Matcher, LABELS, st.text(max_size=12), st.booleans()), max_size=3).map(tuple)
NUMBERS = st.floats(allow_nan=False, allow_infinity=False)
WINDOWS = st.integers(1, LONGEST_WINDOW)


@st.composite
def expressions(draw: st.DrawFn) -> Expression:
    aggregate = draw(st.sampled_from(Aggregate))
    window = WINDOWS if aggregate.is_of_counters else st.none() if aggregate is Aggregate.SUM else st.none() | WINDOWS
    ending = draw(st.sampled_from(["_total", "_count", "_sum"] if aggregate.is_of_counters else ["", "_ratio"]))
    return Expression(
        aggregate=aggregate,
        metric=f"registry_{draw(st.from_regex(r'[a-z]{1,8}', fullmatch=True))}{ending}",
        relation=draw(st.sampled_from(Relation)),
        number=draw(NUMBERS),
        matchers=draw(MATCHERS),
        window=draw(window),
    )


# -- The grammar ---------------------------------------------------------------------------------------------------


@given(expressions())
def test_an_expression_that_is_formatted_reads_as_the_same(expression: Expression):
    assert Expression.parse(str(expression)) == expression


@given(st.text(max_size=60))
def test_any_other_text_is_refused_with_a_message(text: str):
    with pytest.raises(BadExpression, match=r"wants|no number|window|use"):
        Expression.parse(text)


def test_an_expression_has_an_aggregate_a_metric_labels_a_window_and_a_comparison():
    assert Expression.parse(
        ' increase( registry_jobs_total{ kind = "a\\"b", outcome!="done"}[5m] )>= 2.50 '
    ) == Expression(
        Aggregate.INCREASE,
        "registry_jobs_total",
        Relation.GREATER_OR_EQUAL,
        2.5,
        (Matcher("kind", 'a"b'), Matcher("outcome", "done", equal=False)),
        300,
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("median(a) > 1", "wants one of max, min, sum, avg, increase, rate at 'median(a) > 1'"),
        ("maximum(a) > 1", "wants one of max, min"),
        ("max a > 1", "wants ( at 'a > 1'"),
        ("max() > 1", "wants the name of a metric at"),
        ("max(a{b=~\"c\"}) > 1", "wants = or != "),
        ("max(a{b=c}) > 1", "wants a value in double quotes"),
        ("max(a{b=\"c\"[5m]) > 1", "wants } or a comma at"),
        ("max(a[5]) > 1", "wants a window such as 30s, 5m or 1h at"),
        ("max(a[2h]) > 1", "a window is 1 to 3600 s long, not 7200 s"),
        ("max(a[0s]) > 1", "a window is 1 to 3600 s long, not 0 s"),
        ("max(a)", "wants one of < <= > >= == != at 'its end'"),
        ("max(a) > many", "wants a number at 'many'"),
        ("max(a) > 1e999", "is no number to compare with"),
        ("max(a) > 1 for 5m", "wants nothing more at 'for 5m'"),
        ("increase(a_total) > 1", "increase wants a window"),
        ("rate(a[5m]) > 1", "rate wants a counter"),
        ("sum(a_total) > 1", "sum wants a gauge"),
        ("sum(a[5m]) > 1", "sum takes no window"),
    ],
)  # fmt: skip
def test_a_bad_expression_says_what_was_wanted_and_where(text: str, said: str):
    with pytest.raises(BadExpression) as refused:
        Expression.parse(text)

    assert said in str(refused.value)


@pytest.mark.parametrize(
    ("comparison", "holds"),
    [("<", (True, False, False)), ("<=", (True, True, False)), (">", (False, False, True)),
     (">=", (False, True, True)), ("==", (False, True, False)), ("!=", (True, False, True))],
)  # fmt: skip
def test_a_comparison_compares_the_value_with_the_number(comparison: str, holds: tuple[bool, bool, bool]):
    expression = Expression.parse(f"max(a) {comparison} 2")

    assert tuple(expression.holds(value) for value in (1.0, 2.0, 3.0)) == holds


def test_labels_are_matched_by_equality_only_and_one_that_is_missing_is_empty():
    expression = Expression.parse('max(a{queue="payments", pool!="slow"}) > 1')

    assert expression.matches({"queue": "payments", "pool": ""})
    assert expression.matches({"queue": "payments"})
    assert not expression.matches({"queue": "payments", "pool": "slow"})
    assert not expression.matches({"pool": ""})


# -- Rules -----------------------------------------------------------------------------------------------------------


def rule(**different: object) -> AlertRule:
    given = {
        "name": "a.rule",
        "expression": "max(a) > 1",
        "for_": 0,
        "severity": Severity.WARNING,
        "scope": "host",
        "sentence": "It is so.",
    }
    return AlertRule(**{**given, **different})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("different", "said"),
    [
        ({"name": "A rule"}, "the name of a rule"),
        ({"scope": "planet"}, "scope is service or host, not 'planet'"),
        ({"severity": Severity.WELL}, "severity is CRITICAL, WARNING or NOTICE"),
        ({"for_": -1}, "for_ is a number of seconds"),
        ({"expression": "increase(a_total[5m]) > 1", "scope": "service"}, "its scope is host"),
    ],
)
def test_a_rule_that_contradicts_itself_is_refused_when_it_is_declared(different: dict[str, object], said: str):
    with pytest.raises(BadRule, match=said):
        rule(**different)


def test_a_rules_section_of_the_runbook_is_its_name_unless_it_names_another():
    assert rule().runbook == "a.rule"
    assert rule(runbook="workers").runbook == "workers"


def test_a_name_is_registered_once(monkeypatch):
    monkeypatch.setattr(rules, "_rules", {})
    register(rule(), rule(name="b.rule", scope="service"))

    with pytest.raises(BadRule, match="two rules named"):
        register(rule())
    assert [one.name for one in rules.rules()] == ["a.rule", "b.rule"]
    assert [one.name for one in rules.rules("service")] == ["b.rule"]
    assert rules.rule_of("a.rule") and rules.rule_of("no.rule") is None


async def test_every_rule_reads_a_metric_that_exists():
    known = await metric_names()

    assert {one.condition.metric for one in rules.rules()} - known == set()
    assert "registry_payments_accepted_total" in known and "registry_workers" in known
