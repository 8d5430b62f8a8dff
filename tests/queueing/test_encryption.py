"""Encrypted payloads: bound to their message, decrypted for authorized readers, with rotating keys."""

import io

import pytest
from django.core.management import CommandError, call_command

from queueing.broker import crypto, rotation
from tests.factories import in_thread

SECRET = "only for you"


@pytest.fixture
async def secret(mq, queue, keys):
    """A queue whose payloads are encrypted, with one message."""
    await mq.call(
        "POST", "/api/v1/configure", json={"queue": queue, "options": {"encryptionEnabled": True}}, status=200
    )
    [pushed] = await mq.push(queue, SECRET)
    return pushed


async def rows(mq, table="message"):
    return await mq.sql(f"SELECT payload, key_id FROM queueing_{table} WHERE tenant_id = %s ORDER BY id", mq.tenant_id)


def use(monkeypatch, *names):
    """Keys by name, the first encrypts; each name has always the same."""
    monkeypatch.setattr(
        crypto, "_cipher", crypto.Cipher({name: name.encode().ljust(32) for name in names}, setting=crypto.SETTING)
    )


async def test_payloads_are_stored_encrypted_and_delivered_decrypted(mq, queue, secret):
    [(payload, key_id)] = await rows(mq)

    assert SECRET.encode() not in payload
    assert key_id == "k1"
    assert await mq.data(queue) == [SECRET]


async def test_equal_payloads_have_different_ciphertexts(mq, queue, secret):
    await mq.push(queue, SECRET)

    (one, _), (two, _) = await rows(mq)

    assert one != two


async def test_messages_and_dead_letters_show_the_payload_to_readers(mq, queue, secret):
    [message] = (await mq.pop(queue))["messages"]
    await mq.ack(message, "dlq")

    detail = await mq.call("GET", f"/api/v1/messages/{message['partitionId']}/{message['transactionId']}", status=200)
    [letter] = (await mq.call("GET", "/api/v1/dlq", status=200))["messages"]

    assert (detail["payload"], detail["isEncrypted"]) == (SECRET, True)
    assert (letter["data"], letter["isEncrypted"]) == (SECRET, True)
    [(payload, _)] = await rows(mq, "deadmessage")
    assert SECRET.encode() not in payload


async def test_a_replay_encrypts_the_payload_for_its_new_position(admin, queue, keys):
    await admin.configure(queue, encrypted=True)
    await admin.push(queue, SECRET)
    await admin.ack((await admin.pop(queue))["messages"][0], "dlq")
    [letter] = (await admin.call("GET", "/api/v1/dlq", status=200))["messages"]

    await admin.call("POST", f"/api/v1/dlq/{letter['id']}/replay", status=200)

    assert all(SECRET.encode() not in payload and key for payload, key in await rows(admin))
    assert await admin.data(queue) == [SECRET]


async def test_a_ciphertext_moved_to_another_message_is_an_error_and_never_shown(mq, queue, secret):
    [other] = await mq.push(queue, "another")
    await mq.sql(
        "UPDATE queueing_message m SET payload = o.payload FROM queueing_message o"
        " WHERE m.tenant_id = %s AND o.tenant_id = m.tenant_id AND o.seq <> m.seq",
        mq.tenant_id,
    )

    for pushed in (secret, other):
        path = f"/api/v1/messages/{pushed['partition_id']}/{pushed['transaction_id']}"
        told = await mq.call("GET", path, status=500)
        assert SECRET not in str(told) and "another" not in str(told)


async def test_without_its_key_a_payload_is_an_error_that_names_the_key(mq, queue, secret, monkeypatch):
    use(monkeypatch, "k9")

    told = await mq.call("GET", f"/api/v1/messages/{secret['partition_id']}/{secret['transaction_id']}", status=500)

    assert "'k1'" in told["error"]


async def test_one_dead_letter_that_cannot_be_decrypted_does_not_hide_the_others(mq, queue, secret, monkeypatch):
    await mq.push("open" + queue, "plain")
    for name in (queue, "open" + queue):
        await mq.ack((await mq.pop(name))["messages"][0], "dlq")
    use(monkeypatch, "k9")

    letters = (await mq.call("GET", "/api/v1/dlq", status=200))["messages"]

    assert [(one["data"], bool(one["dataError"])) for one in letters] == [("plain", False), (None, True)]


async def test_without_any_key_encrypted_queues_are_neither_configured_nor_pushed_to(mq, queue, secret, monkeypatch):
    use(monkeypatch)

    pushed = await mq.call("POST", "/api/v1/push", json={"items": [{"queue": queue, "payload": 1}]}, status=500)
    body = {"queue": "x" + queue, "options": {"encryptionEnabled": True}}
    configured = await mq.call("POST", "/api/v1/configure", json=body, status=400)

    assert "QUEUE_ENCRYPTION_KEYS" in pushed["error"] and "QUEUE_ENCRYPTION_KEYS" in configured["error"]
    assert len(await rows(mq)) == 1


# -- Rotation ------------------------------------------------------------------------------------------------------


async def test_a_rotation_encrypts_all_payloads_with_the_first_key(mq, queue, monkeypatch):
    use(monkeypatch, "old")
    await mq.configure(queue, encrypted=True)
    await mq.push(queue, *range(5))
    await mq.ack((await mq.pop(queue))["messages"][0], "dlq")
    await mq.push("open" + queue, "plain")
    use(monkeypatch, "new", "old")
    monkeypatch.setattr(rotation, "SLICE", 2)

    done = await rotation.rotate(mq.tenant_id)
    use(monkeypatch, "new")

    assert (done.changed, done.unreadable) == (6, 0)
    assert {key for _, key in await rows(mq)} == {"new", None}
    assert {key for _, key in await rows(mq, "deadmessage")} == {"new"}
    assert await mq.data(queue, batch=9) == [1, 2, 3, 4]
    assert [one["data"] for one in (await mq.call("GET", "/api/v1/dlq"))["messages"]] == [0]


async def test_an_interrupted_rotation_continues_and_repeating_it_changes_nothing(mq, queue, monkeypatch):
    use(monkeypatch, "old")
    await mq.configure(queue, encrypted=True)
    await mq.push(queue, *range(6))
    use(monkeypatch, "new", "old")
    monkeypatch.setattr(rotation, "SLICE", 2)

    class Stopped(Exception):
        pass

    def stop(_):
        raise Stopped

    with pytest.raises(Stopped):
        await rotation.rotate(mq.tenant_id, progress=stop)
    begun = [key for _, key in await rows(mq)].count("new")
    rest, again = await rotation.rotate(mq.tenant_id), await rotation.rotate(mq.tenant_id)

    assert (begun, rest.changed, again.changed) == (2, 4, 0)
    assert await mq.data(queue, batch=9) == list(range(6))


async def test_payloads_that_cannot_be_decrypted_are_left_counted_and_named(mq, queue, monkeypatch):
    use(monkeypatch, "lost")
    await mq.configure(queue, encrypted=True)
    await mq.push(queue, 1)
    before = await rows(mq)
    use(monkeypatch, "new")

    done = await rotation.rotate(mq.tenant_id)

    assert (done.changed, done.unreadable) == (0, 1)
    assert await rows(mq) == before


# -- The command -----------------------------------------------------------------------------------------------------


async def command(*words):
    out = io.StringIO()
    await in_thread(call_command, "queue", *words, stdout=out)
    return out.getvalue()


async def test_queues_are_listed_configured_and_deleted_by_command(mq, tenant, queue):
    configured = await command("configure", tenant.slug, queue, "leaseTime=9", "deadLetterQueue=false")
    await mq.push(queue, 1)
    listed = await command("list", tenant.slug)
    deleted = await command("delete", tenant.slug, queue)

    assert "leaseTime=9" in configured and "deadLetterQueue=false" in configured
    assert queue in listed and "1 pending" in listed
    assert "deleted" in deleted
    assert await mq.sql("SELECT 1 FROM queueing_queue WHERE tenant_id = %s", mq.tenant_id) == []


async def test_the_command_explains_errors(tenant, queue):
    for words in (("configure", tenant.slug, queue, "leaseTime=0"), ("configure", tenant.slug, queue, "leaseTime"),
                  ("delete", tenant.slug, "none"), ("list", "nobody-here")):  # fmt: skip
        with pytest.raises(CommandError):
            await command(*words)


async def test_the_command_rotates(mq, queue, monkeypatch):
    use(monkeypatch, "old")
    await mq.configure(queue, encrypted=True)
    await mq.push(queue, 1)
    use(monkeypatch, "new", "old")

    said = await command("rotate")

    assert "1 re-encrypted" in said
    assert [key for _, key in await rows(mq)] == ["new"]
