"""Base of management commands that run async code: event loop, connections, error messages, JSON output."""

import asyncio
import getpass
import json
from typing import Any

import psycopg
from django.core.exceptions import ImproperlyConfigured, ValidationError
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import OperationalError, ProgrammingError

from registry.data import identity
from registry.data.loop import end_loop
from registry.errors import Problem
from registry.models import Tenant


class AsyncCommand(BaseCommand):
    """Subclasses define `run`, or `do_<verb>` for each subcommand `verb`. A Problem becomes a CommandError (exit code 1)."""

    requires_system_checks = ()

    async def run(self, *args: Any, **options: Any) -> None:
        await getattr(self, f"do_{options.pop('verb')}")(**options)

    def handle(self, *args: Any, **options: Any) -> None:
        asyncio.run(self._owned(options))

    async def _owned(self, options: dict[str, Any]) -> None:
        try:
            await self.run(**options)
        except Problem as problem:
            raise CommandError(problem.detail) from problem
        except ValidationError as error:
            raise CommandError("; ".join(_sentences(error))) from error
        except ProgrammingError as error:
            if not isinstance(error.__cause__, psycopg.errors.UndefinedTable):
                raise
            raise CommandError("the database lacks a table; `manage.py migrate` makes it") from error
        except OperationalError as error:
            raise CommandError(f"the database cannot be reached: {error}") from error
        finally:
            await end_loop()

    def report(self, text: str, data: Any, *, as_json: bool) -> None:
        """Print `data` as one line of JSON, or `text`."""
        self.stdout.write(json.dumps(data) if as_json else text)
        self.stdout.flush()  # who reads it need not wait for the command's end


def service_name() -> str:
    """`identity.name`; raises CommandError instead of ImproperlyConfigured."""
    try:
        return identity.name()
    except ImproperlyConfigured as error:
        raise CommandError(str(error)) from error


def actor() -> str:
    """The user who runs the command, for the audit trail."""
    try:
        return f"command line, {getpass.getuser()}"
    except (KeyError, OSError):
        return "command line"


async def tenant_named(slug: str) -> Tenant:
    """The tenant by slug. Raises CommandError."""
    tenant = await Tenant.async_objects.filter(slug=slug).afirst()
    if tenant is None:
        raise CommandError(f"there is no tenant {slug!r}; `tenant list` shows all")
    return tenant


def add_json(parser: CommandParser) -> None:
    parser.add_argument("--json", action="store_true", help="print JSON, for programs")


def _sentences(error: ValidationError) -> list[str]:
    if hasattr(error, "error_dict"):
        return [f"{field}: {' '.join(texts)}" for field, texts in error.message_dict.items()]
    return list(error.messages)
