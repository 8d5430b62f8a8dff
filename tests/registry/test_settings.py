"""Settings: typed, read once; a bad or unsafe value stops the start with the variable's name; production is clean."""

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from django.db import connection

from registry import settings

PROJECT = Path(__file__).parents[2]
SAFE = {
    "DATABASE_URL": "postgres://registry:hush-hush@127.0.0.1:1/registry",
    "REDIS_URL": "redis://:hush-hush@127.0.0.1:1/0",
    "SECRET_KEY": "0" * 10 + "abcdefghijklmnopqrstuvwxyz-ABCDEFGHIJKLMNOPQRSTUVWXYZ-0123456789",
}
PRODUCTION = {**SAFE, "ALLOWED_HOSTS": "pay.example.com", "REGISTRY_URL": "https://pay.example.com"}


def run(*command: str, folder: Path, **environ: str) -> subprocess.CompletedProcess:
    """A process that knows nothing but these variables."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    return subprocess.run(
        [sys.executable, *command],
        cwd=PROJECT, env={**kept, "REGISTRY_DATA": str(folder), **environ}, capture_output=True, text=True, timeout=60,
    )  # fmt: skip


def read(folder: Path, expression: str, **environ: str) -> str:
    """The value of `expression` over the settings, or the error's last line."""
    done = run("-c", f"from registry import settings as s; print({expression})", folder=folder, **{**SAFE, **environ})
    return done.stdout.strip() if done.returncode == 0 else done.stderr.strip().splitlines()[-1]


def together(folder: Path, cases: list[tuple[str, dict[str, str]]]) -> list[str]:
    with ThreadPoolExecutor(4) as threads:
        return list(threads.map(lambda case: read(folder, case[0], **case[1]), cases))


# -- Typed --------------------------------------------------------------------------------------------------------

WHOLE = {
    "DB_POOL_MIN": 5,
    "DB_POOL_MAX": 20,
    "DB_POOL_OVERFLOW": 10,
    "DB_POOL_TIMEOUT": 30,
    "DB_POOL_RECYCLE": 3600,
    "DB_QUERY_TIMEOUT": 30,
    "DB_RETRY_ATTEMPTS": 3,
    "DB_RETRY_BACKOFF": 2,
    "DB_RETRY_MAX": 10,
    "BATCH_SIZE": 100,
    "CONCURRENT_OPERATIONS": 10,
}


def test_every_limit_of_the_data_layer_has_its_default_and_takes_another_value(tmp_path: Path):
    values = "[" + ", ".join(f"s.{name}" for name in WHOLE) + "]"
    others = {name: str(default + 1) for name, default in WHOLE.items()}

    defaults, changed = together(tmp_path, [(values, {}), (values, others)])

    assert defaults == str(list(WHOLE.values()))
    assert changed == str([default + 1 for default in WHOLE.values()])


BAD = {
    **{name: ["ten", "-1", "1.5"] for name in WHOLE},
    "REGISTRY_MAX_BODY": ["big", "10"],
    "REGISTRY_MAX_BATCH_BODY": ["big", "10"],
    "SECRET_KEY_FALLBACKS": ["hush-hush", f"{'a' * 32},hush-hush"],
    "DEBUG": ["maybe", "2"],
    "DB_PREPARE": ["perhaps"],
    "LOG_LEVEL": ["LOUD"],
    "LOG_FORMAT": ["xml"],
    "DATABASE_URL": [
        "",
        "hush-hush",
        "mysql://u:hush-hush@h/d",
        "postgres://u:hush-hush@h",
        "postgres://u:hush-hush%zz@h/d",
        "postgres://u:hush-hush@h/d?pool=1",
        "postgres://u:hush-hush@h:80000/d",
        "postgres://u:hush-hush@h:1,i:2,j/d?port=1,2",
        "postgres://u:hush-hush@h,i/d?target_session_attrs=standby",
    ],
    "DATABASE_DIRECT_URL": [
        "hush-hush",
        "redis://:hush-hush@h",
        "postgres://u:hush-hush@h/d?target_session_attrs=standby",
    ],
    "DB_TRANSACTION_POOLING": ["perhaps"],
    "REDIS_URL": ["", "hush-hush", "http://:hush-hush@h"],
    "LIVE_REDIS_URL": ["hush-hush:1"],
    "RQ_REDIS_URL": ["hush-hush:1"],
    "SPILL_REDIS_URL": ["hush-hush:1"],
    "SPILL_MAX_BYTES": ["big", "10"],
    "SPILL": ["disk"],
    "INTAKE": ["file"],
    "REGISTRY_URL": ["pay.example.com"],
    "ALLOWED_HOSTS": ["https://pay.example.com", "pay.example.com 127.0.0.1", "pay.example.com:443"],
    "OTEL_EXPORTER_OTLP_ENDPOINT": ["hush-hush:4318", "grpc://:hush-hush@h"],
    "OTEL_EXPORTER_OTLP_HEADERS": ["hush-hush", "x-key=1,hush-hush"],
    "TRACE_SAMPLE_RATE": ["often", "-0.1", "1.5", "nan"],
    "TRACE_VIEWER_URL": ["viewer.example/{trace_id}", "https://viewer.example/"],
    "SLOW_PAYMENT": ["ten", "0"],
    "TRUSTED_PROXIES": ["*", "proxy.example", "10.0.0.1/8", "10.0.0.0/8 ::1"],
}


def test_an_invalid_value_stops_the_start_with_the_name_of_the_variable_and_the_rule(tmp_path: Path):
    cases = [(name, value) for name, values in BAD.items() for value in values]
    # One process for all: a module that is not there yet is read anew by each import.
    script = """
import importlib, json, os, sys
for name, value in json.loads(sys.argv[1]):
    kept = dict(os.environ)
    os.environ[name] = value
    sys.modules.pop("registry.settings", None)
    try:
        importlib.import_module("registry.settings")
        print("nothing")
    except Exception as error:
        print(type(error).__name__, str(error).replace(chr(10), " "))
    os.environ.clear()
    os.environ.update(kept)
"""
    done = run("-c", script, json.dumps(cases), folder=tmp_path, **SAFE)

    said = done.stdout.splitlines()
    assert done.returncode == 0, done.stderr
    assert len(said) == len(cases)
    for (name, value), line in zip(cases, said, strict=True):
        assert line.startswith(f"ImproperlyConfigured {name} "), (name, value, line)
        assert "hush-hush" not in line


def test_proxies_are_named_by_address_or_network_and_there_are_none_by_default(tmp_path: Path):
    named = {"TRUSTED_PROXIES": "127.0.0.1, 10.0.0.0/8,fd00::/8"}

    none, some = together(tmp_path, [("s.TRUSTED_PROXIES", {}), ("[str(n) for n in s.TRUSTED_PROXIES]", named)])

    assert (none, some) == ("()", "['127.0.0.1/32', '10.0.0.0/8', 'fd00::/8']")


def test_a_pool_without_connections_is_refused(tmp_path: Path):
    alone = {"DB_POOL_MIN": "1", "DB_POOL_MAX": "1", "DB_POOL_OVERFLOW": "0"}
    said, single = together(tmp_path, [("0", {"DB_POOL_MIN": "9", "DB_POOL_MAX": "8"}), ("0", alone)])

    assert "DB_POOL_MIN (9) wants to be at most DB_POOL_MAX (8)" in said
    assert "at least 2 together" in single


@pytest.mark.parametrize(
    ("text", "value"), [("1", True), ("TRUE", True), ("on", True), ("0", False), ("no", False), ("", False)]
)
def test_a_flag_accepts_the_usual_words(monkeypatch, text: str, value: bool):
    monkeypatch.setenv("SOME_FLAG", text)

    assert settings.flag("SOME_FLAG", False) is value


def test_secrets_encrypted_with_an_older_key_are_read_once_that_is_a_fallback(tmp_path: Path):
    before, now = "b" * 40, "n" * 40
    environ = {**SAFE, "DJANGO_SETTINGS_MODULE": "registry.settings"}

    def ciphering(call: str, **keys: str) -> subprocess.CompletedProcess:
        code = f"from registry.tenants.encryption import *; print({call})"
        return run("-c", code, folder=tmp_path, **{**environ, **keys})

    sealed = ciphering("seal({'key': 'hush'}, place='processor 7').hex()", SECRET_KEY=before).stdout.strip()
    unseal = f"unseal(bytes.fromhex('{sealed}'), place='processor 7')"
    named = ciphering(unseal, SECRET_KEY=now, SECRET_KEY_FALLBACKS=f"{'o' * 40}, {before}")
    unnamed = ciphering(unseal, SECRET_KEY=now)

    assert named.stdout.strip() == "{'key': 'hush'}"
    assert "SECRET_KEY_FALLBACKS" in unnamed.stderr


# -- Production ------------------------------------------------------------------------------------------------------


def test_unsafe_values_are_refused_where_debugging_is_off(tmp_path: Path):
    star, short, allowed = together(
        tmp_path,
        [
            ("0", {"ALLOWED_HOSTS": "*"}),
            ("0", {"SECRET_KEY": "short"}),
            ("s.DEBUG", {"ALLOWED_HOSTS": "*", "SECRET_KEY": "short", "DEBUG": "1"}),
        ],
    )

    assert "ALLOWED_HOSTS wants" in star
    assert "SECRET_KEY wants" in short
    assert allowed == "True"


def test_a_mail_server_wants_the_public_address_that_its_links_begin_with(tmp_path: Path):
    mail = {"EMAIL_URL": "smtp://mail.example"}
    refused, allowed = together(
        tmp_path, [("0", mail), ("s.EMAIL_URL", {**mail, "REGISTRY_URL": "https://pay.example.com"})]
    )

    assert "REGISTRY_URL wants the public base URL" in refused
    assert allowed == "smtp://mail.example"


def test_a_public_host_enables_all_security_settings(tmp_path: Path):
    wanted = (
        "[s.DEBUG, s.SECURE_SSL_REDIRECT, s.SESSION_COOKIE_SECURE, s.CSRF_COOKIE_SECURE, s.SESSION_COOKIE_HTTPONLY]"
    )

    local, production = together(tmp_path, [(wanted, {}), (wanted, PRODUCTION)])

    assert local == "[False, False, False, False, True]"
    assert production == "[False, True, True, True, True]"


def test_hsts_covers_this_host_only_unless_configured(tmp_path: Path):
    hsts = "[s.SECURE_HSTS_SECONDS, s.SECURE_HSTS_INCLUDE_SUBDOMAINS, s.SECURE_HSTS_PRELOAD]"
    wide = {"HSTS_SUBDOMAINS": "1", "HSTS_PRELOAD": "1"}

    home, plain, short, all_of_it, half, brief = together(
        tmp_path,
        [
            (hsts, {}),
            (hsts, PRODUCTION),
            (hsts, {**PRODUCTION, "HSTS_SECONDS": "300"}),
            (hsts, {**PRODUCTION, **wide}),
            (hsts, {**PRODUCTION, "HSTS_PRELOAD": "1"}),
            (hsts, {**PRODUCTION, **wide, "HSTS_SECONDS": "300"}),
        ],
    )

    assert home == "[0, False, False]"
    assert plain == "[31536000, False, False]"
    assert short == "[300, False, False]"
    assert all_of_it == "[31536000, True, True]"
    assert "HSTS_PRELOAD wants" in half and "HSTS_PRELOAD wants" in brief


def test_a_production_environment_passes_djangos_deployment_check(tmp_path: Path):
    where = connection.settings_dict  # the models' checks ask the server for its version
    address = f"postgres://{where['USER']}:{where['PASSWORD']}@{where['HOST']}:{where['PORT']}/{where['NAME']}"
    environ = {**PRODUCTION, "DATABASE_URL": address}

    done = run("manage.py", "check", "--deploy", "--fail-level", "WARNING", folder=tmp_path, **environ)

    assert done.returncode == 0, done.stderr
    assert "no issues" in done.stdout


def test_a_secret_key_is_created_once_and_readable_by_its_owner_only(tmp_path: Path):
    without = {name: value for name, value in SAFE.items() if name != "SECRET_KEY"}
    script = ("-c", "from registry import settings; print(settings.SECRET_KEY)")
    with ThreadPoolExecutor(4) as threads:
        keys = list(threads.map(lambda _: run(*script, folder=tmp_path, **without).stdout.strip(), range(4)))

    assert len(set(keys)) == 1
    assert len(keys[0]) > 64
    assert (tmp_path / "secret_key").stat().st_mode & 0o077 == 0
