"""One run in the laboratory: load, strikes one after the other, each until everything has recovered, and the judgement of the books."""

import asyncio
import random
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from rich.table import Table

from tests.chaos.verdict import SETTLE_LIMIT, faults, until_settled
from tests.histories import final
from tests.histories.checker import PAYMENTS, Fault, Kind, check
from tests.histories.entries import Line, Struck
from tests.histories.phases import Phases
from tests.histories.recorder import Recorder
from tests.histories.strikes import AWAY, Planned
from tests.lab.laboratory import Laboratory, laboratory
from tests.lab.load import Shop, longest_pause
from tests.waiting import SCALE, eventually

BETWEEN = 100  # payments before the first strike, and after the last one
ACCEPT_LIMIT = 60.0 * SCALE  # seconds for these
BEGIN_LIMIT = 60.0 * SCALE  # seconds until a strike finds what it strikes
RECOVERY = 240.0 * SCALE  # seconds from the end of a strike until the service, and all servers, work as before
LOOK_EVERY = 0.1  # seconds


@dataclass
class Result:
    """The result of one strike. Durations are seconds; moments are seconds of the wall clock."""

    name: str
    machine: str = ""
    began: float = 0.0
    healed: float = 0.0
    late: float = 0.0  # from the beginning until all that was accepted before it is settled
    recovered: float | None = None  # after it was healed
    whole: float | None = None  # the servers
    accepting: float = 0.0  # longest pauses, from the beginning to the recovery
    settling: float = 0.0

    @property
    def until(self) -> float:
        return self.healed + (self.recovered or 0.0)


@dataclass
class Run:
    seed: int
    plan: list[Planned[Laboratory]]
    way: str
    rate: int
    kept: Path  # where the logs of all machines are copied to
    tell: Callable[[str], None] = lambda _: None
    phases: Phases = field(default_factory=lambda: Phases("building the laboratory"))
    results: list[Result] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    lines: list[Line] = field(default_factory=list)
    lost: int | None = None
    twice: int | None = None
    shop: Shop | None = None

    async def run(self) -> None:
        self.recorder = Recorder()
        async with laboratory(self.way, self.phases.begin) as lab:
            try:
                await self._strike(lab)
                await self._judge(lab)
            finally:
                lab.keep_logs(self.kept)

    async def _strike(self, lab: Laboratory) -> None:
        addresses = [host.url for host in lab.web]
        self.shop = Shop(addresses, lab.key, rate=self.rate, traces=self.recorder.traces("shop"))
        async with self.shop.sending():
            await self._more("load before the strikes")
            for planned in self.plan:
                await self._one(lab, planned)
            await self._more("load after the strikes")

    async def _more(self, what: str) -> None:
        self.phases.begin(what)
        await self.shop.more(BETWEEN, within=ACCEPT_LIMIT)

    # -- Strikes ---------------------------------------------------------------------------------------------------

    async def _one(self, lab: Laboratory, planned: Planned[Laboratory]) -> None:
        self.phases.begin("load")
        await asyncio.sleep(planned.after)
        result = Result(planned.strike.name)
        self.results.append(result)
        dice = random.Random(f"{self.seed} {len(self.results)}")
        async with AsyncExitStack() as struck:
            result.began = time.time()
            async with asyncio.timeout(BEGIN_LIMIT):
                while not await _begun(struck, lab, planned, dice):
                    await asyncio.sleep(LOOK_EVERY)
            result.machine = lab.struck
            began = datetime.fromtimestamp(result.began, UTC)
            late = asyncio.create_task(
                _seconds(lambda: lab.has_closed(began), lab, f"{planned.strike}: earlier ones", since=result.began)
            )
            self.phases.begin(f"{planned.strike} ({lab.struck}) for {planned.held:.0f} s", under="strikes")
            await asyncio.sleep(planned.held)
        result.healed = time.time()
        self.phases.begin(f"recovering from {planned.strike} ({lab.struck})", under="recovering")
        healed = datetime.now(UTC)
        result.recovered = await _seconds(lambda: lab.is_ready() and lab.is_settled(healed), lab, str(planned.strike))
        result.whole = await _seconds(lab.is_whole, lab, f"{planned.strike}: servers", since=result.healed)
        result.late = await late
        self.recorder.add(Struck(name=result.name, began=result.began, healed=result.healed))
        self._measure(lab, result)
        self.tell(f"{result.name} ({result.machine}): {self._row(result)}")

    def _measure(self, lab: Laboratory, result: Result) -> None:
        assert self.shop
        result.accepting = longest_pause(self.shop.moments, result.began, result.until)
        booked = [
            datetime.fromisoformat(at).timestamp() for one in lab.processors.values() for _, at in one.booked.values()
        ]
        result.settling = longest_pause(booked, result.began, result.until)

    # -- Judgement -------------------------------------------------------------------------------------------------

    async def _judge(self, lab: Laboratory) -> None:
        self.phases.begin("settling")
        await until_settled(lab, before=datetime.now(UTC), within=SETTLE_LIMIT)
        self.phases.begin("reading the books")
        self.faults += await faults(lab, self.shop)
        folders = [host.data for host in lab.hosts]
        end = await final.of_payments(lab, folders, seed=self.seed, surprises=self.shop.surprises)
        self.lines = self.recorder.finish() + end
        found = await asyncio.to_thread(check, self.lines, PAYMENTS)
        self.faults += map(str, found)
        self.lost, self.twice = (_count(found, kind) for kind in (Kind.LOST, Kind.BOOKED_TWICE))

    # -- What is shown ----------------------------------------------------------------------------------------------

    def _row(self, result: Result) -> str:
        return (
            f"held {result.healed - result.began:.1f} s, longest pause of accepting {result.accepting:.2f} s, of settling"
            f" {result.settling:.1f} s, earlier ones settled within {result.late:.1f} s; recovered {result.recovered:.1f} s and all servers whole {result.whole:.1f} s after its end"
        )

    def __rich__(self) -> Table:
        columns = (
            "strike",
            "machine",
            "held",
            "no accept for",
            "no booking for",
            "settled within",
            "recovered",
            "servers whole",
        )
        title = f"seed {self.seed}, primary {'by several hosts in the address' if self.way == 'direct' else 'through HAProxy'}"
        table = Table(*columns, title=title)
        for one in self.results:
            if one.whole is None:
                table.add_row(one.name, one.machine)
                continue
            seconds = (one.healed - one.began, one.accepting, one.settling, one.late, one.recovered, one.whole)
            table.add_row(one.name, one.machine, *(f"{value:.2f} s" for value in seconds))
        accepted = len(self.shop.accepted) if self.shop else 0
        table.caption = f"{self.phases.now} · {len(self.results)} of {len(self.plan)} strikes · {accepted:,} accepted"
        return table

    def summary(self) -> list[str]:
        """The figures of the whole run."""
        moments = self.shop.moments if self.shop else []
        pause = longest_pause(moments, min(moments), max(moments)) if moments else 0.0
        recovered = [one.recovered for one in self.results if one.recovered is not None]
        return [
            f"accepted {len(self.shop.accepted):,}, sent again {self.shop.retries:,}" if self.shop else "accepted 0",
            f"longest pause between accepted answers {pause:.2f} s",
            f"lost {self.lost}, twice {self.twice}",
            f"books {'equal' if not self.faults and self.lost is not None else 'NOT equal'}",
            f"recovered from {len(recovered)} of {len(self.plan)} strikes, the slowest in {max(recovered, default=0.0):.1f} s",
        ]


async def _begun(struck: AsyncExitStack, lab: Laboratory, planned: Planned[Laboratory], dice: random.Random) -> bool:
    """False while what it strikes is not there: nobody is the primary at this moment."""
    try:
        await struck.enter_async_context(planned.strike.during(lab, dice))
    except (LookupError, *AWAY):
        return False
    return True


async def _seconds(question: Callable[[], bool], lab: Laboratory, what: str, since: float | None = None) -> float:
    """Until it holds."""
    began = since or time.time()
    try:
        await eventually(lambda: asyncio.to_thread(question), within=RECOVERY)
    except TimeoutError:
        raise TimeoutError(f"{what}: not recovered within {RECOVERY:g} s\n{lab.last_words()}") from None
    return time.time() - began


def _count(found: list[Fault], kind: Kind) -> int:
    """How many examples of one kind."""
    return sum(int(fault.detail.partition(":")[0]) for fault in found if fault.kind is kind)
