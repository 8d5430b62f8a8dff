"""Kinds of jobs that are registered wrongly stop the start, and say what is allowed."""

from typing import Any

import msgspec
import pytest

from queueing.jobs.kinds import KINDS, kind


class Login(msgspec.Struct, rename="camel"):
    user: str
    api_key: str


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("shop.login", {"secret": ("api_key",)}, "no field 'api_key' (names as in JSON: user, apiKey)"),
        ("shop.login", {"addresses": ("url",)}, "no field 'url'"),
        ("shop.login", {"scope": "foo"}, "no scope 'foo'; there are read, write, admin"),
        ("shop.login", {"attempts": 0}, "attempts are 1 to 100, not 0"),
        ("shop.login", {"timeout": 0}, "a time-out is above 0 and at most 86400 s"),
        ("Shop Login", {}, "a name has up to 100 lower-case letters"),
    ],
)
def test_a_kind_that_no_job_could_have_is_not_registered(name: str, options: dict[str, Any], said: str) -> None:
    with pytest.raises(TypeError) as refused:

        @kind(name, input=Login, **options)
        def login(context: Any, given: Login) -> None: ...

    assert said in str(refused.value)
    assert name in str(refused.value)
    assert name not in KINDS


def test_the_scopes_are_those_of_api_keys() -> None:
    from queueing.jobs.kinds import SCOPES
    from registry.models import ApiKey

    assert set(SCOPES) == set(ApiKey.Scope.values)
