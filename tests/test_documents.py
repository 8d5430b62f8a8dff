"""Every command in README.md, docs/, and the READMEs of bench, tests and client: run as it is written, or in the list below with the reason why not."""

import asyncio
import io
import itertools
import json
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

import pytest
from django.core.management import call_command, get_commands, load_command_class

import bench.__main__ as benchmarks
from payments.states import FAILED, SUCCEEDED, Status
from queueing.jobs.work import JobWork
from registry.data.loop import sync_twin
from registry.models import Tenant
from registry.tenants import access, audit_chain
from tests.bed.stripe import sandbox_stripe
from tests.conftest import Api, make_key
from tests.factories import in_thread, make_payment, make_processor, make_stripe, make_tenant
from tests.payments.refunding import draining

pytestmark = pytest.mark.usefixtures("lean_commands")

PROJECT = Path(__file__).resolve().parents[1]
READMES = [PROJECT / folder / "README.md" for folder in (".", "bench", "tests", "client")]
FILES = [*READMES, *sorted((PROJECT / "docs").rglob("*.md"))]
MANAGE = ".venv/bin/python manage.py "
LOG_LINES = {"audit trail holds", "audit trail broken", "ledger does not add up"}  # they begin as a command does
AN_ID = UUID("5f4c5b1e-8f7b-4a57-9d2f-0c9a3a1f2b11")  # the payment that the documents speak of

# By how they begin. Of those of manage.py at least the arguments are read.
NOT_RUN = {
    f"{MANAGE}up": "serves until it is stopped: tests/registry/test_up.py runs it",
    f"{MANAGE}createsuperuser": "asks a person",
    f"{MANAGE}check --deploy": "wants the settings of a public service: tests/registry/test_settings.py runs it",
    f"{MANAGE}migrate --plan": "wants the database of a release before; `make lint` holds the migrations",
    f"{MANAGE}spill replay ID…": "requires a quarantined write: tests/queueing/test_spill.py runs it",
    f"{MANAGE}spill drop ID…": "requires a quarantined write: tests/queueing/test_spill.py runs it",
    f"{MANAGE}alerts --test": "calls a receiver: tests/registry/test_alert_messages.py runs it",
    f"{MANAGE}alerts --export": "writes into a folder of the machine: tests/registry/test_alert_exports.py runs it",
    "promtool": "wants Prometheus' programs: tests/registry/test_alert_exports.py runs it",
    f"{MANAGE}webhook test": "calls a receiver: tests/queueing/test_webhook_testkit.py runs it",
    ".venv/bin/python -m sandbox": "serves until it is stopped: tests/payments/stripe runs it",
    ".venv/bin/python -m tests.chaos": "takes half an hour",
    ".venv/bin/python -m tests.histories": "tests/histories/test_run.py makes a run, a hundred take an hour",
    f"{MANAGE}reconcile run shop --processor stripe": "asks Stripe: tests/payments/test_reconcile_stripe.py runs it",
    ".venv/bin/pip install": "changes the environment",
    ".venv/bin/python docs/quickstart/shop.py": "serves until it is stopped: tests/test_quickstart.py runs it",
    "node docs/quickstart/shop.mjs": "serves until it is stopped: tests/test_quickstart.py runs it",
    "git pull": "changes the checkout",
    "journalctl": "wants the service as a unit of systemd: tests/registry/test_change_lines.py runs its jq",
    "systemctl": "wants the service as a unit of systemd",
    "pg_dump": "wants PostgreSQL's client programs: tests/test_backup.py runs it",
    "pg_basebackup": "wants PostgreSQL's client programs: tests/test_backup.py runs it",
    "pg_restore": "wants PostgreSQL's client programs: tests/test_backup.py runs it",
    'DATABASE_URL="$RESTORED_URL"': "wants a restored database: tests/test_backup.py runs it",
}


@dataclass(frozen=True)
class Command:
    file: str
    text: str

    @property
    def why_not(self) -> str | None:
        return next((why for start, why in NOT_RUN.items() if self.text.startswith(start)), None)


# -- What is written -------------------------------------------------------------------------------------------


def blocks(language: str = "sh") -> Iterator[tuple[str, str]]:
    """The fenced blocks: file and text."""
    for file in FILES:
        for found in re.finditer(r"^```(\w*)\n(.*?)^```", file.read_text(), re.M | re.S):
            if found[1] == language or (language == "sh" and not found[1] and found[2].startswith("make ")):
                yield str(file.relative_to(PROJECT)), found[2]


def commands() -> Iterator[Command]:
    """The commands of fenced blocks, one each; continued lines joined, comments left out."""
    for file, text in blocks():
        for line in text.replace("\\\n", " ").splitlines():
            for part in re.sub(r"\s#\s.*|\s+&$", "", " " + line).split(" && "):
                if command := re.sub(r" {2,}", " ", part.strip()):
                    yield Command(file, command)


def spoken() -> Iterator[Command]:
    """Commands within sentences and tables: `make …`, `manage.py …`, and the table's `apikey create TENANT …`."""
    names = "|".join(sorted(set(get_commands()) - {"check", "test", "shell"}))
    start = rf"(?:[A-Z_]+=\S+ )*(?:make |(?:\.venv/bin/python )?manage\.py |\.venv/bin/python |(?:{names}) [a-z]+\b)"
    for file in FILES:
        prose = re.sub(r"^```.*?^```", "", file.read_text(), flags=re.M | re.S)
        for found in re.finditer(rf"`({start}[^`\n]*|up)`", prose):
            if found[1] not in LOG_LINES:
                yield Command(str(file.relative_to(PROJECT)), found[1].replace("\\|", "|"))


ALL = list(commands())
SPOKEN = list(dict.fromkeys(command.text for command in spoken()))


def of(*starts: str) -> list[str]:
    """Those that begin so and are to be run, as ids of tests."""
    return list(dict.fromkeys(one.text for one in ALL if one.text.startswith(starts) and one.why_not is None))


def test_every_command_in_the_documents_is_tested_or_listed():
    known = ("make ", MANAGE, "curl ", *NOT_RUN)
    prefixed = re.compile(
        r"(?:[A-Z_]+=\S+ )+make run$|(?:export )?(?:\w+=.*;? ?)+$"
    )  # settings before a command; variables

    assert [one for one in ALL if not one.text.startswith(known) and not prefixed.match(one.text)] == []
    assert [
        start for start in NOT_RUN if not any(start in text for text in [*SPOKEN, *(one.text for one in ALL)])
    ] == []
    assert len(ALL) > 40 and len(SPOKEN) > 20


def slug(title: str) -> str:
    """The anchor of a heading, as GitHub makes it."""
    return re.sub(r"[^\w\- ]", "", title.replace("`", "").lower()).strip().replace(" ", "-")


def test_every_link_leads_to_a_file_and_a_heading_that_exist():
    broken = []
    for file in FILES:
        for target in re.findall(r"\]\(([^)\s]+)\)", re.sub(r"^```.*?^```", "", file.read_text(), flags=re.M | re.S)):
            if re.match(r"[a-z]+:", target):
                continue
            name, _, anchor = target.partition("#")
            there = (file.parent / name).resolve() if name else file
            headings = (
                [slug(one) for one in re.findall(r"^#+ (.*)", there.read_text(), re.M)]
                if anchor and there.is_file()
                else []
            )
            if not there.exists() or (anchor and anchor not in headings):
                broken.append(f"{file.relative_to(PROJECT)}: {target}")

    assert broken == []


def test_the_glossary_is_in_order_and_has_every_state():
    words, states = (PROJECT / "docs" / "glossary.md").read_text().split("## States")
    rows = [slug(re.sub(r"\[([^]]*)\]\S*", r"\1", one)) for one in re.findall(r"^\| ([^|]+) \|", words, re.M)][1:]

    assert rows == sorted(rows) and len(rows) == len(set(rows))
    assert set(re.findall(r"^\| `(\w+)`", states, re.M)) == set(Status.values)


# -- make --------------------------------------------------------------------------------------------------------


def make_commands() -> list[str]:
    spoken = [text for text in SPOKEN if re.match(r"(?:[A-Z_]+=\S+ )*make ", text)]
    return list(dict.fromkeys([*of("make "), *spoken, *(one.text for one in ALL if one.text.endswith(" make run"))]))


def test_every_target_of_make_exists_and_takes_its_arguments():
    script = "\n".join(command.replace("make ", "make -n ", 1).replace("…", "") for command in make_commands())

    done = subprocess.run(["bash", "-ec", script], cwd=PROJECT, capture_output=True, text=True, timeout=60)

    assert done.returncode == 0, done.stderr
    for command in make_commands():
        if wanted := re.search(r"make bench ARGS=(\"[^\"]*\"|\S+)", command):
            benchmarks.parse(shlex.split(wanted[1].strip('"')))  # exits for a benchmark that there is not


# -- manage.py ------------------------------------------------------------------------------------------------------


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tenant:
    """What the documents' commands presume: the tenant `shop` with two processors and a payment."""
    monkeypatch.chdir(tmp_path)
    tenant = make_tenant("shop", mode="sandbox")
    processor = make_processor(tenant, "default")
    make_processor(tenant, "fallback")
    make_payment(tenant, status=FAILED, processor=processor, correlation_id=AN_ID)
    call_command("apikey", "create", "shop", stdout=io.StringIO())  # so that its audit trail has an entry
    return tenant


PLACEHOLDERS = {
    "sk_test_…": "sk_test_a", "whsec_…": "whsec_" + "a" * 32, "pk_test_…": "pk_test_a", "41:9f2c…": f"1:{'0' * 64}",
}  # fmt: skip


def filled_in(command: str, **more: str) -> str:
    """The command with values where the documents say `…`."""
    for placeholder, value in {**PLACEHOLDERS, **more}.items():
        command = command.replace(placeholder, value)
    return command


def ours(command: str) -> list[str]:
    """The arguments of manage.py, without what a shell does with its output."""
    return shlex.split(re.split(r" [|>]|2>>", command.removeprefix(MANAGE))[0])


RUN_APART = ("tenant create", "processor add")  # of what `shop` has already


@pytest.mark.parametrize("command", of(MANAGE))
def test_a_command_of_manage_py_does_what_the_documents_say(command: str, shop: Tenant):
    noted = audit_chain.verify_sync(shop.pk)
    arguments = ours(filled_in(command, **{"41:9f2c…": f"{noted.entries}:{noted.head}"}))
    if " ".join(arguments[:2]) in RUN_APART:
        arguments = ["other" if one == "shop" else "second" if one == "default" else one for one in arguments]
        if arguments[0] == "processor":
            make_tenant("other")
    out = io.StringIO()

    try:
        call_command(*arguments, stdout=out, stderr=out)
    except SystemExit as left:
        assert left.code in (0, None), out.getvalue()


@pytest.mark.parametrize("command", [one.text for one in ALL if one.text.startswith(MANAGE) and one.why_not])
def test_a_command_that_is_not_run_has_arguments_that_are_understood(command: str):
    parse(ours(filled_in(command)))


def parse(arguments: list[str]) -> None:
    """Exits where the command does not take these arguments."""
    name = arguments[0]
    app = get_commands()[name]
    command = app if not isinstance(app, str) else load_command_class(app, name)
    command.create_parser("manage.py", name).parse_args(arguments[1:])


VALUES = {
    "TENANT": "shop", "SLUG": "shop", "PREFIX": "0123456789ab", "ID": "1", "--name …": "--name till",
    "--expires …": "--expires 2099-01-31", "--rate-limit …": "--rate-limit 20/minute", "NAME.FIELD=VALUE": "a.fee=0.1",
    "WHY": "because", "--patience MS": "--patience 300",
}  # fmt: skip


def usages(text: str) -> Iterator[list[str]]:
    """What a usage line allows: each of `a|b`, without the options in brackets, with each of them, and with all.

    One that ends in … leaves arguments out: then only the words before are looked up.
    """
    text = re.sub(r"^(?:\.venv/bin/python )?manage\.py ", "", re.sub(r"\s*2>>.*", "", text))
    for written, value in VALUES.items():
        text = text.replace(written, value)
    options = re.findall(r"\[([^\]]*)\]", text)
    rest = [word.split("|") for word in re.sub(r"\s*\[[^\]]*\]", "", text).split()]
    for words in itertools.product(*rest):
        for chosen in [[], *([one] for one in options), options]:
            yield [*words, *shlex.split(" ".join(chosen))]


MANAGED = [text for text in SPOKEN if not re.match(r"(?:[A-Z_]+=\S+ )*make |\.venv/bin/python -m", text)]


@pytest.mark.parametrize("text", [one for one in MANAGED if "COMMAND" not in one])
def test_a_command_within_a_sentence_exists(text: str, capsys: pytest.CaptureFixture):
    for arguments in usages(text):
        if arguments[-1] == "…":
            arguments = [*arguments[:2], "--help"]
        try:
            parse(arguments)
        except SystemExit as left:
            assert left.code == 0, (arguments, capsys.readouterr().err)


@pytest.mark.parametrize("options", [["--scope", "read", "write", "admin"], ["--scope", "read", "--scope", "write"]])
def test_a_key_is_made_with_several_scopes_in_either_way(options: list[str]):
    make_tenant("shop")
    out = io.StringIO()

    call_command(
        "apikey", "create", "shop", *options, "--name", "till", "--expires", "2099-01-31", "--rate-limit", "20/minute",
        "--json", stdout=out,
    )  # fmt: skip

    made = json.loads(out.getvalue())
    principal = sync_twin(access.authenticate)(f"Bearer {made['apiKey']}")
    assert list(made["scopes"]) == [word for word in options if word != "--scope"]
    assert (principal.scopes, str(principal.rate_limit)) == (set(made["scopes"]), "20 per 1 minute")


# -- curl --------------------------------------------------------------------------------------------------------------

ELSEWHERE = {
    "docs/quickstart.md",  # its blocks build on one another: tests/test_quickstart.py runs them
    "docs/scale.md",  # they ask several hosts: tests/hosts/test_scale_document.py runs them
}
CURLS = list(dict.fromkeys(text for file, text in blocks() if "curl " in text and file not in ELSEWHERE))
FAILING = 'curl() { command curl -sS --fail-with-body --max-time 20 "$@"; }\n'  # exit code 22 for 4xx and 5xx


@pytest.mark.parametrize("block", CURLS, ids=lambda text: re.search(r"curl[^\n]*", text)[0][:60])
async def test_a_block_of_curl_is_answered_as_the_documents_say(server: str, tenant, block: str):
    key = await make_key(tenant, "admin")
    processor = await in_thread(make_processor, tenant)
    paid = await in_thread(make_payment, tenant, status=SUCCEEDED, processor=processor)
    async with sandbox_stripe() as stripe:
        await in_thread(make_stripe, tenant, stripe.url)
        script = re.sub(r"rk_…|Bearer KEY", lambda at: key if at[0] != "Bearer KEY" else f"Bearer {key}", block)
        script = script.replace("http://127.0.0.1:8000", server).replace(
            "payments/ID/", f"payments/{paid.correlation_id}/"
        )
        script = script.replace("http://127.0.0.1:12111", stripe.url).replace("sk_test_mine", stripe.secret_key)
        script = script.replace("https://your.host", "http://127.0.0.1:9999").replace(
            "orders?batch=10&wait=true", "orders?batch=10"
        )
        if '"transactionId":"…"' in script:
            script = await acking(script, Api(server, key))
        async with draining(JobWork()):  # a worker, for blocks that wait for a job
            done = await bash(f"KEY={key}\n{FAILING}{script}")

    assert done.returncode == 0, (done.stdout, done.stderr)
    assert '"success":false' not in done.stdout.replace(" ", "")


async def acking(script: str, api: Api) -> str:
    """The block with what its own pop answers in its ack; the group of another message is leased first."""
    push, _, rest = script.partition('\ncurl "$Q/pop')
    pushed = await bash(f"{FAILING}{push}")
    assert pushed.returncode == 0, pushed.stderr
    popped = await bash(f'{FAILING}{push.partition("curl")[0]}\ncurl "$Q/pop{rest.partition(chr(10))[0]}')
    message = json.loads(popped.stdout)["messages"][0]
    for name in ("transactionId", "partitionId", "leaseId"):
        rest = rest.replace(f'"{name}":"…"', f'"{name}":"{message[name]}"')
    return push.partition("curl")[0] + rest.partition("\n")[2]


async def bash(script: str) -> subprocess.CompletedProcess[str]:
    return await asyncio.to_thread(
        subprocess.run, ["bash", "-ec", script], capture_output=True, text=True, timeout=60, cwd="/tmp"
    )


@pytest.mark.parametrize("file", sorted((PROJECT / "docs" / "decisions").glob("[0-9]*.md")), ids=lambda file: file.name)
def test_a_decision_has_the_number_of_its_file(file: Path):
    assert file.read_text().startswith(f"# {int(file.name[:3])}. ")


@pytest.mark.parametrize("program", ["tests.chaos", "tests.histories", "tests.lab", "sandbox", "bench"])
def test_a_program_that_takes_too_long_for_a_test_can_be_started(program: str):
    done = subprocess.run(
        [sys.executable, "-m", program, "--help"], cwd=PROJECT, capture_output=True, text=True, timeout=60
    )

    assert done.returncode == 0, done.stderr
    assert "usage:" in done.stdout
