"""The load of the queue benchmarks notices repeated, unordered and missing messages."""

import json

import pytest

from bench.queue.load import Load, Run
from bench.queue.wire import Got, acking, payload, pushing


@pytest.fixture
def run():
    return Run(Load(0, {}, "q", 10, read=1, wanted=3))


def delivered(*numbers, producer=7, partition=3, group="g", at=1.0):
    return group, at, [payload(producer, partition, number) for number in numbers]


def test_messages_in_order_are_no_violation(run):
    run.read = [
        delivered(0, 1),
        delivered(0, producer=8),
        delivered(0, partition=4),
        delivered(0, 1, group="h"),
        delivered(2),
    ]

    run.look_back()

    assert run.report.broken == 0


@pytest.mark.parametrize("numbers", [(0, 0, 1), (1, 0, 2), (0, 2, 3)], ids=["twice", "out of order", "one missing"])
def test_repeated_and_unordered_messages_are_counted(run, numbers):
    run.read = [delivered(*numbers)]

    run.look_back()

    assert run.report.broken > 0


def test_the_longest_dwell_is_from_the_push_to_the_pop(run):
    run.sent = {payload(7, 3, 0): 1.0, payload(7, 3, 1): 3.0}
    run.read = [delivered(0, at=1.5), delivered(1, at=3.1)]

    run.look_back()

    assert run.report.dwell == 500


def test_requests_are_the_json_that_the_queue_reads():
    body = json.loads(pushing("q", 7, 3, [0, 1]))
    got = [Got("t0", "p", "l", "x"), Got("t1", "p", "l", "x")]

    assert [item["partition"] for item in body["items"]] == ["p3", "p3"]
    assert [len(json.dumps(item["payload"])) for item in body["items"]] == [28, 28]
    assert json.loads(acking(got[:1], "g"))["transactionId"] == "t0"
    assert [ack["transactionId"] for ack in json.loads(acking(got, "g"))["acknowledgments"]] == ["t0", "t1"]
