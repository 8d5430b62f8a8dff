"""A process that evaluates one rule of its host until it fires, with a clock that it advances, and prints after how many seconds.

`python -m tests.alerts.child RULE`, with the environment of the service.
"""

import asyncio
import os
import sys

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "registry.settings")
django.setup()

from registry.data.loop import end_loop  # noqa: E402 - after Django's settings
from registry.operators.alerts import rules  # noqa: E402
from registry.operators.alerts.evaluator import EVERY, AlertEvaluator  # noqa: E402
from tests.alerts.watching import ShiftedClock, evaluated  # noqa: E402
from tests.registry.alerting import HOST, ElectedAtOnce, states_of_alerts  # noqa: E402

LIMIT = 600.0  # seconds of the clock


async def main(name: str) -> float:
    rule = rules.rule_of(name)
    assert rule
    rules._rules = {name: rule}
    clock = ShiftedClock(EVERY[rule.scope])
    began = clock.step()
    evaluator = AlertEvaluator("host", HOST, ElectedAtOnce(), clock=clock)
    sender = AlertEvaluator("service", "", ElectedAtOnce(), clock=clock)
    try:
        while clock.at - began < LIMIT:
            await evaluated(evaluator)
            await evaluated(sender)
            if await states_of_alerts() == ["firing"]:
                return clock.at - began
            clock.step()
        raise TimeoutError(f"{name} does not fire")
    finally:
        await end_loop()


if __name__ == "__main__":
    print(asyncio.run(main(sys.argv[1])))
