"""One run: a service of its own, clients, strikes, healing, and the whole history of it."""

import asyncio
import random
import shutil
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tests.bed.receiver import Heard, Receiver
from tests.bed.stripe import sandbox_stripe
from tests.bed.wire import response
from tests.chaos.job_load import Jobs
from tests.chaos.service import Service, running
from tests.chaos.traffic import Traffic
from tests.chaos.verdict import until_settled
from tests.histories import final, prepared
from tests.histories.disks import small_disks
from tests.histories.entries import Delivered, Line, Struck
from tests.histories.payers import CARD, Payer, Refunder, Shop, once, until_quiet
from tests.histories.phases import STRUCK, Phases
from tests.histories.readers import Looking
from tests.histories.recorder import Recorder
from tests.histories.strikes import AWAY, Planned, Site, Strike, planned
from tests.waiting import SCALE, eventually

SECONDS = 12.0  # of load and strikes
STRIKE_LIMIT = 90.0 * SCALE  # seconds for one strike, with what it needs to begin and to be healed
WHOLE_LIMIT = 60.0 * SCALE  # seconds until the service is ready again
SETTLE_LIMIT = 90.0 * SCALE  # seconds until everything is settled after the last one
PURGE_LIMIT = 60.0 * SCALE  # seconds until a purge is answered
RUN_LIMIT = 600.0 * SCALE  # seconds of a whole run: whatever it waits for, a seed ends with a verdict
PAYMENTS, REFUNDS, JOBS, PUSHES = (
    6.0,
    4.0,
    4.0,
    2.0,
)  # a second: of each payer, of all refunds and jobs, of each producer
STRIKES = (3, 5)
PAUSES = (0.03, 0.12)  # seconds between two looks of one reader
PURGED = 0.25  # share of the runs in which the sandbox is purged
QUEUE = "history"


class Run:
    """What a seed makes of it. `doing` says where it is. The service's log is copied to the file `log` in any case."""

    def __init__(
        self,
        seed: int,
        *,
        seconds: float = SECONDS,
        strikes: tuple[int, int] = STRIKES,
        log: Path | None = None,
    ) -> None:
        self.seed, self.seconds, self.log = seed, seconds, log
        dice = random.Random(seed)
        self.dice = {name: random.Random(dice.getrandbits(64)) for name in CLIENTS}
        self.strikes = planned(self.dice["strikes"], strikes=dice.randint(*strikes), seconds=seconds)
        self.purges_after = dice.randrange(len(self.strikes)) if dice.random() < PURGED else None
        self.phases = Phases("starting")
        self.recorder = Recorder()
        self._webhooks: set[str] = set()  # ids that were heard
        self._under_load = True

    @property
    def doing(self) -> str:
        return self.phases.now

    async def record(self) -> list[Line]:
        """Everything that was asked, answered and done, and what is there at the end. Raises TimeoutError after RUN_LIMIT."""
        async with asyncio.timeout(RUN_LIMIT), AsyncExitStack() as stack:
            receiver = await stack.enter_async_context(Receiver())
            stripe = await stack.enter_async_context(sandbox_stripe())
            others = {CARD: stripe.url}
            service = await stack.enter_async_context(running(others=others, fill=prepared.fill, disks=small_disks))
            receiver.answers_by(self._heard)
            stack.callback(self._ends, service)
            await prepared.add_endpoint(service, receiver.url)
            return await self._run(Site(service, stripe))

    def _ends(self, service: Service) -> None:
        self.phases.begin("ending")
        if self.log:
            shutil.copyfile(service.data / "up.log", self.log)

    def _heard(self, heard: Heard) -> bytes:
        """Under load one in ten is answered with an error at first, so that it is sent again; a third try would be minutes later."""
        data, new = heard.data, heard.id not in self._webhooks
        self._webhooks.add(heard.id)
        fails = new and self._under_load and self.dice["receiver"].random() < 0.1
        self.recorder.add(
            Delivered(
                at=self.recorder.now(),
                id=heard.id,
                type=heard.type,
                payment=data["correlationId"],
                sequence=data["sequence"],
                status=data["status"],
            )
        )
        return response(500 if fails else 200, b"{}")

    # -- Load and strikes ------------------------------------------------------------------------------------------

    async def _run(self, site: Site) -> list[Line]:
        service, shop = site.service, Shop()
        address, traces = (service.url, service.key), self.recorder.traces
        payers = [
            Payer(shop, *address, rate=PAYMENTS / SCALE, dice=self.dice[name], traces=traces(name))
            for name in ("anna", "ben")
        ]
        refunder = Refunder(shop, *address, rate=REFUNDS / SCALE, dice=self.dice["refunder"], traces=traces("refunder"))
        jobs = Jobs(*address, total=10**6, dice=self.dice["jobs"], rate=JOBS / SCALE, traces=traces("jobs"))
        traffic = Traffic(*address, QUEUE, dice=self.dice["queue"], pushes=PUSHES / SCALE, traces=traces)
        looking = Looking(*address, shop, self.recorder, pauses=(PAUSES[0] * SCALE, PAUSES[1] * SCALE))
        async with self._looking(looking):
            async with AsyncExitStack() as load:
                for client in (*payers, refunder, jobs):
                    await load.enter_async_context(client.sending())
                await load.enter_async_context(traffic.flowing())
                await self._strike(site, shop, looking)
                self._under_load = False
                self.phases.begin("healing")
                await self._whole(service)
                self.phases.begin("last requests")
            self.phases.begin("settling")
            await until_settled(service, before=datetime.now(UTC), within=SETTLE_LIMIT)
            await self._until(lambda: final.left(service), "all refunds, jobs and webhooks are done")
            await self._until(lambda: final.behind(service, looking.latest), "the watchers have seen everything")
            self.phases.begin("reading")
            async with looking.session("last") as session:
                await looking.all_pages(session)
                await once(session, "GET", "/payments-summary")
        surprises = [one for client in (*payers, refunder, jobs) for one in client.surprises]
        surprises += traffic.book.surprises
        self.phases.begin("reading the books")
        lines = self.recorder.finish()
        return lines + await final.state(site, traffic, seed=self.seed, surprises=surprises)

    @asynccontextmanager
    async def _looking(self, looking: Looking) -> AsyncIterator[None]:
        tasks = [
            *(asyncio.create_task(looking.look(name, self.dice[name])) for name in ("carla", "dave")),
            *(asyncio.create_task(looking.follow(name, self.dice[name])) for name in ("emma", "felix")),
            *(asyncio.create_task(looking.watch(name)) for name in ("gina", "hugo")),
        ]
        try:
            yield
            for task in tasks:
                if task.done():
                    task.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _strike(self, site: Site, shop: Shop, looking: Looking) -> None:
        for number, strike in enumerate(self.strikes):
            self.phases.begin("load")
            await asyncio.sleep(strike.after)
            await self._one(site, strike)
            if number == self.purges_after:
                await self._purge(site.service, shop, looking)
        await asyncio.sleep(1)

    async def _one(self, site: Site, planned: Planned) -> None:
        """The service may not have recovered from the strike before."""
        strike, began = planned.strike, self.recorder.now()
        missing = strike.missing()
        self.phases.begin(str(strike), under=STRUCK)
        if not missing:
            async with AsyncExitStack() as struck, asyncio.timeout(STRIKE_LIMIT):
                while not await self._begun(struck, site, strike):
                    await asyncio.sleep(0.1)
                await asyncio.sleep(planned.held)
        healed = self.recorder.now()
        self.recorder.add(Struck(name=strike.name, began=began, healed=healed, left_out=missing))

    async def _begun(self, struck: AsyncExitStack, site: Site, strike: Strike) -> bool:
        """False while what it needs is away itself."""
        try:
            await struck.enter_async_context(strike.during(site, self.dice["strikes"]))
        except AWAY:
            return False
        return True

    async def _purge(self, service: Service, shop: Shop, looking: Looking) -> None:
        """Nobody sends meanwhile: what is sent again after a purge would be another payment under the same id."""
        self.phases.begin("purging")
        await until_quiet(shop)
        async with looking.session("purge") as session, asyncio.timeout(PURGE_LIMIT):
            while True:
                answer = await once(session, "POST", "/purge-payments")
                if answer and answer[0] == 200:
                    break
                await asyncio.sleep(0.1)
        shop.accepted.clear()
        shop.refundable.clear()
        shop.open.set()

    # -- Waiting -----------------------------------------------------------------------------------------------------

    async def _whole(self, service: Service) -> None:
        try:
            await eventually(lambda: asyncio.to_thread(service.is_ready), within=WHOLE_LIMIT)
        except TimeoutError:
            raise TimeoutError(f"{self.doing}: not ready\n{service.last_words()}") from None

    async def _until(self, question: Callable[[], Any], what: str) -> None:
        """Until nothing is the answer."""
        deadline = time.monotonic() + SETTLE_LIMIT
        while found := await asyncio.to_thread(question):
            if time.monotonic() > deadline:
                raise TimeoutError(f"seed {self.seed}: not within {SETTLE_LIMIT:g} s: {what}: {found}")
            await asyncio.sleep(0.1)


CLIENTS = ("strikes", "anna", "ben", "refunder", "jobs", "queue", "receiver", "carla", "dave", "emma", "felix")
