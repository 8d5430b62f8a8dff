"""Dry run of routing rules: route the latest payments by edited rules with `routing.choose`, without writing anything.

The attempts that had ended before a payment was sent give the state of each endpoint at that moment: latencies give its pace,
outcomes its breaker. Health reports are not stored, so the current rules are run in the same way, and the real decisions are shown
beside both. Each payment counts once, at its first send. Fees are as if all payments were booked: that of the ledger where this
processor booked the payment and its fee is not edited, because a processor may name its own; else the share of the amount. The expected success is
a processor's share of booked sends among those with a known outcome, or the tenant's share if it has none. Activation:
activate.py.
"""

import hashlib
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from math import inf
from pathlib import Path
from typing import Any, NamedTuple
from uuid import UUID

import msgspec

from payments.money import share
from payments.processors.base import Account, Health, Outcome, Result
from payments.routing import routing
from payments.routing.accounts import Refused, check_fee
from payments.routing.endpoint import Condition, EndpointCondition
from payments.routing.pace import next_number
from registry.data import database
from registry.data.breaker import Breaker, BreakerState
from registry.data.loop import sync_twin

SQL = database.statements(Path(__file__).parent / "sql" / "dry_run.sql")

MOST = 10_000  # payments of one dry run: some seconds and megabytes
EXAMPLES = 20  # payments listed that would go elsewhere
WAITS = ""  # instead of a processor's name: none can take the payment
NOT_SENT = frozenset(
    {"not_sent_in_time", "worker_left", "never_booked", "looked_up", "not_there_yet"}
)  # codes without an answer to a send
EDITED_OPTIONS = frozenset({"delay", "failing", "longestDelay"})  # those that routing reads


class Rule(msgspec.Struct, frozen=True):
    """The fields of a processor that routing reads."""

    id: int
    name: str
    kind: str
    url: str
    fee: str
    enabled: bool
    options: dict[str, Any]
    mode: str
    patience: int  # milliseconds, of the tenant

    @property
    def fee_ppm(self) -> int:
        return int(Decimal(self.fee) * 1_000_000)


class Sent(NamedTuple):
    """A send that was made, in the order of the statement's columns."""

    payment_id: int
    correlation_id: UUID
    amount: int
    currency: str
    wanted: str
    processor_id: int
    started: float
    outcome: str
    code: str
    latency_ms: int | None
    booked_by: int | None = None  # the processor that booked the payment
    fee: int | None = None  # minor units that it kept, as in the ledger


@dataclass(frozen=True)
class Example:
    """A payment that the edited rules send to another processor."""

    correlation_id: UUID
    amount: int
    currency: str
    before: str
    after: str
    reason: str


@dataclass
class Side:
    """The result of one set of rules."""

    counts: Counter[str] = field(default_factory=Counter)  # processor (or WAITS) → payments
    fees: Counter[str] = field(default_factory=Counter)  # currency → minor units
    success: float | None = None  # expected share; None if nothing was sent


@dataclass(frozen=True)
class DryRun:
    """The comparison of current and edited rules."""

    payments: int
    actual: Side
    before: Side
    after: Side
    moved: int
    examples: list[Example]
    rates: dict[str, float]  # processor → share of its sends that were booked
    rules: str  # digest of the rules that were edited
    edits: dict[str, str]


# -- Rules and their edits ----------------------------------------------------------------------------------


def digest(rules: Sequence[Rule]) -> str:
    """A hash of the rules, so that exactly the rules of the dry run are activated."""
    return hashlib.sha256(
        msgspec.json.encode(sorted(rules, key=lambda rule: rule.id), order="deterministic")
    ).hexdigest()


def edited(rules: Sequence[Rule], edits: dict[str, str]) -> list[Rule]:
    """`rules` with edits such as {"default.fee": "0.03", "fallback.enabled": "false", "default.options.delay": "300"}.

    Raises Refused (422) for an unknown processor, field or value.
    """
    by_name = {rule.name: rule for rule in rules}
    for path, text in edits.items():
        name, _, field_name = path.partition(".")
        if name not in by_name:
            raise Refused(f"there is no processor {name!r}; there are: {', '.join(sorted(by_name))}")
        by_name[name] = _with(by_name[name], field_name, text)
    return sorted(by_name.values(), key=lambda rule: (Decimal(rule.fee), rule.id))


def _with(rule: Rule, field_name: str, text: str) -> Rule:
    if field_name == "fee":
        return msgspec.structs.replace(rule, fee=f"{check_fee(text):.6f}")
    if field_name == "enabled":
        if text not in ("true", "false"):
            raise Refused(f"{rule.name}.enabled is true or false, got {text!r}")
        return msgspec.structs.replace(rule, enabled=text == "true")
    option = field_name.removeprefix("options.")
    if option == field_name or option not in EDITED_OPTIONS:
        wanted = ", ".join(["fee", "enabled", *(f"options.{name}" for name in sorted(EDITED_OPTIONS))])
        raise Refused(f"{rule.name}.{field_name} is not a setting of routing; these are: {wanted}")
    return msgspec.structs.replace(rule, options={**rule.options, option: _option(rule, option, text)})


def _option(rule: Rule, option: str, text: str) -> Any:
    try:
        value = msgspec.json.decode(text)
    except msgspec.DecodeError:
        value = None
    if option == "failing":
        fits = isinstance(value, bool)
    else:
        fits = isinstance(value, (int, float)) and not isinstance(value, bool) and value >= 0
    if not fits:
        raise Refused(
            f"{rule.name}.options.{option} is {'true or false' if option == 'failing' else 'a number'}, got {text!r}"
        )
    return value


async def rules_of(tenant_id: int) -> list[Rule]:
    rows = await database.fetch(SQL["rules"], {"tenant": tenant_id})
    return [
        Rule(pk, name, kind, url, fee, enabled, options_of(options), mode, patience)
        for pk, name, kind, url, fee, enabled, options, mode, patience in rows
    ]


def options_of(options: Any) -> dict[str, Any]:
    """The options as a dictionary: an administrator may have typed anything."""
    return options if isinstance(options, dict) else {}


# -- The dry run --------------------------------------------------------------------------------------------


async def run(*, tenant_id: int, edits: dict[str, str], last: int = 1000) -> DryRun:
    """Route the `last` payments by the edited rules. Raises Refused (422)."""
    if not 1 <= last <= MOST:
        raise Refused(f"a dry run is of 1 to {MOST} payments")
    rules = await rules_of(tenant_id)
    changed = edited(rules, edits)
    sends = [Sent(*row) for row in await database.fetch(SQL["sends"], {"tenant": tenant_id, "last": last})]
    return compare(tenant_id, rules, changed, sends, edits)


def compare(
    tenant_id: int, rules: Sequence[Rule], changed: Sequence[Rule], sends: Sequence[Sent], edits: dict[str, str]
) -> DryRun:
    """Run both sets of rules over the same sends. No I/O."""
    rates, usual = _rates(rules, sends)
    before = _replay(tenant_id, rules, rules, sends)
    after = _replay(tenant_id, changed, rules, sends)
    firsts = _firsts(sends)
    names = {rule.id: rule.name for rule in rules}
    actual = {one.payment_id: (names.get(one.processor_id, WAITS), "") for one in firsts}
    moved = [one for one in firsts if before[one.payment_id][0] != after[one.payment_id][0]]
    return DryRun(
        payments=len(firsts),
        actual=_side(actual, firsts, rules, rules, rates, usual),
        before=_side(before, firsts, rules, rules, rates, usual),
        after=_side(after, firsts, changed, rules, rates, usual),
        moved=len(moved),
        examples=[
            Example(o.correlation_id, o.amount, o.currency, before[o.payment_id][0], *after[o.payment_id])
            for o in moved[:EXAMPLES]
        ],
        rates=rates,
        rules=digest(rules),
        edits=edits,
    )


type Choices = dict[int, tuple[str, str]]  # payment → processor's name, reason


def _replay(tenant_id: int, rules: Sequence[Rule], original: Sequence[Rule], sends: Sequence[Sent]) -> Choices:
    """The choice for each payment's first send, by the state of the endpoints at that moment."""
    state = _State(tenant_id, rules, original)
    answers = deque(sorted((one for one in sends if _has_answer(one)), key=_ended))
    choices = {}
    for one in _firsts(sends):
        while answers and _ended(answers[0]) <= one.started:
            state.learn(answers.popleft())
        route = routing.choose(state.accounts, wanted=one.wanted, now=one.started)
        if isinstance(route, routing.Route):
            choices[one.payment_id] = route.account.name, route.reason
        else:
            choices[one.payment_id] = WAITS, "no processor can take it"
    return choices


class _State:
    """The accounts and endpoints of a dry run, with the clock of the attempts."""

    def __init__(self, tenant_id: int, rules: Sequence[Rule], original: Sequence[Rule]) -> None:
        was = {rule.id: rule for rule in original}
        accounts = [_account(tenant_id, rule) for rule in rules]
        endpoints = {a.endpoint: EndpointCondition(a.endpoint, breaker=_SteadyBreaker()) for a in accounts}
        self.accounts = [(account, endpoints[account.endpoint]) for account in accounts]
        for account, endpoint in self.accounts:
            endpoint.accounts[account.id] = Condition(breaker=_SteadyBreaker())
        self._by_id = {account.id: (account, endpoint) for account, endpoint in self.accounts}
        self._switched = {rule.id: _switches(rule) for rule in rules if _switches(rule) != _switches(was[rule.id])}
        for processor, (delay, failing) in self._switched.items():
            _, endpoint = self._by_id[processor]
            endpoint.health_reported(Health(failing, delay), inf)  # an edited option holds for the whole run

    def learn(self, sent: Sent) -> None:
        if sent.processor_id not in self._by_id or sent.processor_id in self._switched:
            return
        account, endpoint = self._by_id[sent.processor_id]
        result = Result(sent.outcome)
        healthy = result not in (Result.NOT_BOOKED, Result.UNKNOWN)
        outcome, ms = Outcome(result, healthy=healthy), float(sent.latency_ms or 0)
        endpoint.answered(next_number(), account, sent.payment_id, outcome, ms=ms, now=_ended(sent))


class _SteadyBreaker(Breaker):
    """A breaker without random pauses: the same dry run always has the same result."""

    def _open(self, now: float) -> None:
        self._become(BreakerState.OPEN)
        self.probe_at = now + self.pause


def _switches(rule: Rule) -> tuple[int, bool]:
    """The response time and the failing switch of a sandbox's options."""
    delay = rule.options.get("delay")
    return int(delay) if isinstance(delay, (int, float)) else 0, rule.options.get("failing") is True


def _account(tenant_id: int, rule: Rule) -> Account:
    return Account(
        id=rule.id,
        tenant_id=tenant_id,
        name=rule.name,
        kind=rule.kind,
        url=rule.url,
        fee_ppm=rule.fee_ppm,
        options=rule.options,
        enabled=rule.enabled,
        endpoint=f"{rule.kind}:{rule.url or rule.id}",
        mode=rule.mode,
        patience_ms=rule.patience,
    )


def _has_answer(sent: Sent) -> bool:
    return bool(sent.outcome) and sent.code not in NOT_SENT


def _ended(sent: Sent) -> float:
    return sent.started + (sent.latency_ms or 0) / 1000


def _firsts(sends: Sequence[Sent]) -> list[Sent]:
    return list({one.payment_id: one for one in reversed(sends)}.values())[::-1]


def _rates(rules: Sequence[Rule], sends: Sequence[Sent]) -> tuple[dict[str, float], float | None]:
    """The share of booked sends among those with a known outcome: by processor, and of all together."""
    known = [one for one in sends if one.outcome in ("booked", "declined", "not_booked")]
    sent = Counter(one.processor_id for one in known)
    booked = Counter(one.processor_id for one in known if one.outcome == "booked")
    rates = {rule.name: booked[rule.id] / sent[rule.id] for rule in rules if sent[rule.id]}
    return rates, booked.total() / len(known) if known else None


def _fee(one: Sent, rule: Rule, original: Rule) -> int:
    """The fee of a payment at a processor, in minor units."""
    if one.fee is not None and one.booked_by == rule.id and rule.fee_ppm == original.fee_ppm:
        return one.fee
    return share(one.amount, rule.fee_ppm)


def _side(
    choices: Choices,
    firsts: Sequence[Sent],
    rules: Sequence[Rule],
    original: Sequence[Rule],
    rates: dict[str, float],
    usual: float | None,
) -> Side:
    side, by_name, before = Side(), {rule.name: rule for rule in rules}, {rule.name: rule for rule in original}
    for one in firsts:
        name, _ = choices[one.payment_id]
        side.counts[name] += 1
        if name != WAITS:
            side.fees[one.currency] += _fee(one, by_name[name], before[name])
    sent = [(rates.get(name, usual), count) for name, count in side.counts.items() if name != WAITS]
    if sent and all(rate is not None for rate, _ in sent):
        side.success = sum((rate or 0.0) * count for rate, count in sent) / sum(count for _, count in sent)
    return side


rules_of_sync, run_sync = sync_twin(rules_of), sync_twin(run)
