"""The HTTP client against servers that fail at any point: what counts as received, and connections that are not reused."""

import asyncio

import pytest

from registry.http.client import AnswerTimeout, BadAnswer, Client, ConnectTimeout, Disconnected, NotSent
from tests.conftest import eventually
from tests.registry.http_server import OK, Server, hanging, saying
from tests.registry.test_http_client import FRAMINGS, LOOPBACK, certificate, get


async def post(client: Client, limit: float = 5.0):
    return await client.request("POST", "/x", b"{}", limit=limit)


# -- Broken answers ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("answer", FRAMINGS.values(), ids=FRAMINGS.keys())
async def test_a_response_that_is_truncated_anywhere_is_an_error(answer):
    for end in range(len(answer)):
        async with Server(saying(answer[:end], then_close=True)) as server, Client(server.url) as client:
            with pytest.raises(Disconnected):
                await post(client)

            assert (client.connections, len(server.requests)) == (0, 1)


@pytest.mark.parametrize(
    "garbage",
    [
        b"\x16\x03\x01 this is not HTTP \xff\xfe\r\n\r\n",
        b"SSH-2.0-OpenSSH_9\r\n",
        b"HTTP/1.1 20 OK\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 099 OK\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/2.0 200 OK\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999999\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nhi",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
        b"HTTP/1.1 101 Switching\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"y" * 2_000_000,
        b"HTTP/1.1 100 Continue\r\n\r\n" * 100_000,
    ],
    ids=lambda garbage: repr(garbage[:40]),
)
async def test_a_response_that_is_not_http_is_an_error_and_closes_the_connection(garbage):
    async with Server(saying(garbage)) as server, Client(server.url) as client:
        with pytest.raises(BadAnswer):
            await post(client)

        assert client.connections == 0
        await eventually(lambda: not server.open)


async def test_the_second_of_two_responses_to_one_request_is_discarded():
    other = OK.replace(b"hi", b"no")

    async with Server(saying(OK + other)) as server, Client(server.url) as client:
        answers = [await post(client) for _ in range(3)]

    assert [a.body for a in answers] == [b"hi"] * 3
    assert server.accepted == 3


async def test_bytes_after_the_response_are_discarded():
    async with Server(saying(OK + OK[:7])) as server, Client(server.url) as client:
        answers = [await post(client) for _ in range(2)]

    assert [a.body for a in answers] == [b"hi"] * 2
    assert server.accepted == 2


async def test_bytes_on_an_idle_connection_close_it():
    speak = asyncio.Event()

    async def talk(reader, writer, server):
        await server.hear(reader)
        writer.write(OK)
        await speak.wait()
        writer.write(OK.replace(b"hi", b"no"))
        await server.hear(reader)

    async with Server(talk) as server, Client(server.url) as client:
        await post(client)
        speak.set()
        await eventually(lambda: client.connections == 0)
        answer = await post(client)

    assert (answer.body, server.accepted) == (b"hi", 2)


# -- Time ------------------------------------------------------------------------------------------------------------


async def test_an_answer_that_trickles_in_does_not_prolong_its_time():
    async def trickle(reader, writer, server):
        await server.hear(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
        while True:
            writer.write(b"y")
            await writer.drain()
            await asyncio.sleep(0.02)

    async with Server(trickle) as server, Client(server.url) as client:
        started = asyncio.get_running_loop().time()
        with pytest.raises(AnswerTimeout):
            await post(client, limit=0.3)
        took = asyncio.get_running_loop().time() - started

        assert client.connections == 0
        await eventually(lambda: not server.open)
    assert 0.25 < took < 2


async def test_a_late_response_is_not_read_as_the_next_one():
    go = asyncio.Event()

    async def late(reader, writer, server):
        await server.hear(reader)
        if server.accepted == 1:
            await go.wait()
            writer.write(OK.replace(b"hi", b"no"))
        writer.write(OK)
        await server.hear(reader)

    async with Server(late) as server, Client(server.url, connections=1) as client:
        with pytest.raises(AnswerTimeout):
            await post(client, limit=0.2)
        go.set()
        answer = await post(client)

    assert (answer.body, server.accepted) == (b"hi", 2)


async def test_waiting_for_a_connection_counts_towards_the_limit_and_nothing_is_sent():
    async with Server(hanging) as server, Client(server.url, connections=1) as client:
        first = asyncio.create_task(post(client, limit=0.5))
        await eventually(lambda: server.requests)
        with pytest.raises(ConnectTimeout):
            await post(client, limit=0.2)
        with pytest.raises(AnswerTimeout):
            await first

    assert len(server.requests) == 1


async def test_a_handshake_that_never_ends_is_no_connection(tmp_path):
    async def mute(reader, writer, server):
        await reader.read()

    _, trusting = certificate(tmp_path, LOOPBACK)
    async with Server(mute) as server, Client(server.url.replace("http:", "https:"), tls=trusting) as client:
        with pytest.raises(ConnectTimeout):
            await post(client, limit=0.3)

        await eventually(lambda: not server.open)
        assert client.connections == 0


# -- Connections that the server closed ---------------------------------------------------------------------------------


def crossing(times: int):
    """Answer the first request of a connection; close it when the second comes, for so many connections."""

    async def talk(reader, writer, server):
        number = server.accepted
        await server.hear(reader)
        writer.write(OK)
        await server.hear(reader)
        if number > times:
            writer.write(OK)
            await server.hear(reader)

    return talk


async def test_a_post_on_a_connection_that_the_server_is_closing_is_never_sent_again():
    async with Server(crossing(1)) as server, Client(server.url) as client:
        await post(client)
        with pytest.raises(Disconnected):
            await post(client)

        assert (len(server.requests), server.accepted) == (2, 1)


async def test_a_get_on_a_connection_that_the_server_is_closing_is_repeated_once_on_a_new_one():
    async with Server(crossing(5)) as server, Client(server.url) as client:
        await get(client)
        answer = await get(client)

    assert (answer.body, len(server.requests), server.accepted) == (b"hi", 3, 2)


async def test_a_get_is_not_repeated_when_a_new_connection_ends():
    async def goodbye(reader, writer, server):
        await server.hear(reader)

    async with Server(goodbye) as server, Client(server.url) as client:
        with pytest.raises(Disconnected):
            await get(client)

    assert len(server.requests) == 1


async def test_a_get_is_not_repeated_once_its_response_has_begun():
    async def half(reader, writer, server):
        await server.hear(reader)
        writer.write(OK)
        await server.hear(reader)
        writer.write(OK[:9])

    async with Server(half) as server, Client(server.url) as client:
        await get(client)
        with pytest.raises(Disconnected):
            await get(client)

    assert len(server.requests) == 2


async def test_a_get_is_repeated_only_once():
    async def never_twice(reader, writer, server):
        await server.hear(reader)
        if server.accepted == 1:
            writer.write(OK)
            await server.hear(reader)

    async with Server(never_twice) as server, Client(server.url) as client:
        await get(client)
        with pytest.raises(Disconnected):
            await get(client)

    assert (len(server.requests), server.accepted) == (3, 2)


async def test_a_get_is_repeated_on_a_new_connection_even_while_others_wait_for_one():
    async with Server(crossing(1)) as server, Client(server.url, connections=1) as client:
        await get(client)
        answers = await asyncio.gather(*(get(client) for _ in range(5)))

    assert {a.body for a in answers} == {b"hi"}


async def test_a_connection_closed_while_idle_is_not_used():
    async with Server(saying(OK)) as server, Client(server.url) as client:
        await post(client)
        for writer in list(server.open):
            writer.close()
        await eventually(lambda: client.connections == 0)
        answer = await post(client)

    assert (answer.body, server.accepted) == (b"hi", 2)


# -- Cancellation ---------------------------------------------------------------------------------------------------------


async def test_a_cancelled_caller_closes_its_connection():
    async with Server(hanging) as server, Client(server.url, connections=1) as client:
        call = asyncio.create_task(post(client))
        await eventually(lambda: server.requests)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call

        assert client.connections == 0
        await eventually(lambda: not server.open)
        second = asyncio.create_task(post(client))
        await eventually(lambda: len(server.requests) == 2)
        second.cancel()


async def test_a_caller_cancelled_while_waiting_costs_no_connection():
    release = asyncio.Event()

    async def talk(reader, writer, server):
        while True:
            await server.hear(reader)
            await release.wait()
            writer.write(OK)

    async with Server(talk) as server, Client(server.url, connections=1) as client:
        calls = [asyncio.create_task(post(client)) for _ in range(4)]
        await eventually(lambda: server.requests)
        calls[1].cancel()
        release.set()
        ends = await asyncio.gather(*calls, return_exceptions=True)
        after = await post(client)

    assert [isinstance(e, asyncio.CancelledError) for e in ends] == [False, True, False, False]
    assert (after.body, server.accepted) == (b"hi", 1)


async def test_a_connection_assigned_to_a_caller_that_is_cancelled_is_not_lost():
    release = asyncio.Event()

    async def talk(reader, writer, server):
        while True:
            await server.hear(reader)
            await release.wait()
            writer.write(OK)

    async with Server(talk) as server, Client(server.url, connections=1) as client:
        first, second = asyncio.create_task(post(client)), asyncio.create_task(post(client))
        await eventually(lambda: server.requests and client._waiting)
        release.set()
        while client._waiting:
            await asyncio.sleep(0)
        second.cancel()
        with pytest.raises(asyncio.CancelledError):
            await second
        await first
        after = await post(client, limit=2)

    assert (after.body, server.accepted, len(server.requests)) == (b"hi", 1, 2)


async def test_a_caller_that_is_cancelled_while_connecting_leaves_nothing_open(tmp_path):
    async def mute(reader, writer, server):
        await reader.read()

    _, trusting = certificate(tmp_path, LOOPBACK)
    async with Server(mute) as server:
        async with Client(server.url.replace("http:", "https:"), connections=1, tls=trusting) as client:
            for number in range(1, 4):  # the slot comes back each time
                call = asyncio.create_task(post(client))
                await eventually(lambda n=number: server.accepted == n)
                call.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await call
            await eventually(lambda: not server.open)

            assert client.connections == 0


@pytest.mark.parametrize("turns", range(12))
async def test_cancelling_at_any_step_of_the_loop_keeps_the_pool_consistent(turns):
    async with Server(saying(OK)) as server, Client(server.url, connections=2) as client:
        calls = [asyncio.create_task(post(client)) for _ in range(6)]
        for _ in range(turns):
            await asyncio.sleep(0)
        for call in calls[::2]:
            call.cancel()
        ends = await asyncio.gather(*calls, return_exceptions=True)
        after = await asyncio.gather(*(post(client) for _ in range(20)))

        assert client.connections <= 2
    assert {e.body for e in ends[1::2]} == {a.body for a in after} == {b"hi"}


async def test_faults_of_every_kind_leave_no_connection_and_no_slot_behind():
    faults = [b"", OK[:9], b"garbage\r\n\r\n", OK + OK, OK, b"HTTP/1.1 200 OK\r\n\r\n"]

    async def talk(reader, writer, server):
        number = server.accepted
        await server.hear(reader)
        writer.write(faults[number % len(faults)])
        if number % 2:
            await server.hear(reader)

    async with Server(talk) as server, Client(server.url, connections=3) as client:
        ends = await asyncio.gather(*(post(client, limit=0.5) for _ in range(60)), return_exceptions=True)
        await eventually(lambda: not server.open and client.connections == 0)
        slots = client._slots

    assert slots == 3
    assert all(
        not isinstance(e, BaseException) or isinstance(e, (Disconnected, BadAnswer, AnswerTimeout, NotSent))
        for e in ends
    )
