"""Run the whole service in the foreground: collects Django's settings for registry.servers.supervisor."""

import ipaddress
import logging
import os
import signal
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import DatabaseError, OperationalError, connections
from django.utils.module_loading import import_string

from registry.data import pooling
from registry.management.base import service_name
from registry.operators.hosts.heartbeat import Heartbeat, refuse_misfit
from registry.servers import embedded, interpreter, listening, release, supervisor
from registry.servers.plan import ROLES, ServicePlan, add_arguments

log = logging.getLogger(__name__)

DATABASE_LIMIT = 30.0  # seconds for the database to become available during the start
DATABASE_PAUSE = 0.5  # seconds between two tries
# By name, because registry must not import queueing: how many workers are wanted, and what pools there are.
SCALES = "queueing.work.scale.scale_of"
POOLS = "queueing.work.pools.read"


class Command(BaseCommand):
    help = "Run everything in the foreground: servers, web, workers, cron. SIGTERM or Ctrl-C stops it within 10 s."
    requires_system_checks = ()

    def add_arguments(self, parser: CommandParser) -> None:
        add_arguments(parser)

    def handle(self, **options: Any) -> None:
        names = ("host", "port", "web", "workers", "max_workers", "demo", "role")
        refuse_useless_options(options)
        plan = ServicePlan(
            data=Path(settings.REGISTRY_DATA),
            host_header=host_header(),
            pools=pools(options["pool"]),
            **{name: options[name] for name in names},
        )
        refuse_public_host(plan.host)
        warn_of_unknown_proxies()
        log.info("%s", interpreter.describe())
        try:
            listener = listening.listen(plan.host, plan.port)
        except listening.PortTaken as error:
            raise CommandError(str(error)) from None
        with listener:
            migrate(plan.data)
            warn_of_poolers()
            os.environ["REGISTRY_ID"] = (
                service_name()
            )  # for all child processes, also those that start without the database
            os.environ["REGISTRY_HOST"], os.environ["REGISTRY_VERSION"] = settings.REGISTRY_HOST, release.version()
            plan = replace(plan, port=listener.getsockname()[1])
            join()
            settings.DB_POOL_MIN = 1  # of the supervisor itself, which asks for one thing after the other
            reports = Heartbeat(role=plan.role, version=release.version(), address=plan.address)
            supervisor.run(plan, listener, import_string(SCALES), reports)
        for number in (signal.SIGTERM, signal.SIGINT):  # a second signal changes nothing: the servers stop in order
            signal.signal(number, signal.SIG_IGN)


def join() -> None:
    """Raises CommandError where another running host has this one's name, or none of its secret keys."""
    try:
        refuse_misfit()
    except ImproperlyConfigured as error:
        raise CommandError(str(error)) from None
    except DatabaseError as error:  # it went away since the migrations: then nobody is known to run
        log.warning("other hosts are unknown", extra={"error": repr(error)})
    finally:
        connections.close_all()


def refuse_useless_options(options: dict[str, Any]) -> None:
    """Raises CommandError for options that a host of this role could not follow."""
    does, role = ROLES[options["role"]], options["role"]
    if options["pool"] and "worker" not in does:
        raise CommandError(f"--pool wants a role with workers, all or worker, not {role}")
    if options["demo"] and "web" not in does:
        raise CommandError(f"--demo wants a role with web processes, all or web, not {role}")


def refuse_public_host(host: str) -> None:
    """Raises CommandError when other machines could reach a service without production settings: a Host header is easily forged."""
    if settings.PRODUCTION or settings.DEBUG or is_loopback(host):
        return
    raise CommandError(
        f"--host {host or repr(host)} lets others in, but ALLOWED_HOSTS names this machine only, so that sign-up and webhooks "
        "would be as open to them as to you: set ALLOWED_HOSTS to the host name that clients use"
    )


def warn_of_unknown_proxies() -> None:
    """Warn when no proxy is trusted in production: without its word on TLS every page redirects to itself."""
    if settings.PRODUCTION and not settings.TRUSTED_PROXIES:
        log.warning("TRUSTED_PROXIES is empty: X-Forwarded-Proto is ignored, and every request counts as plain HTTP")


def warn_of_poolers() -> None:
    """Warn of a pooler that the settings do not name, and of one that is configured badly."""
    try:
        for warning in pooling.warnings():
            log.warning("%s", warning)
    except OperationalError as error:  # the parts start nevertheless: they wait for the database by themselves
        log.warning("the way to the database was not checked: %s", str(error).splitlines()[0])
    finally:
        connections.close_all()


def is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def migrate(data: Path) -> None:
    """Migrate the database; raises when a server dies meanwhile, because the supervisor does not watch yet."""
    deadline = time.monotonic() + DATABASE_LIMIT
    while True:
        try:
            call_command("migrate", interactive=False, verbosity=0)
            return
        except (OperationalError, psycopg.OperationalError) as error:
            if time.monotonic() > deadline:
                raise CommandError(f"the database cannot be reached: {error}") from error
            log.warning("the database cannot be reached, trying again: %s", str(error).splitlines()[0])
        finally:
            connections.close_all()
        time.sleep(DATABASE_PAUSE)
        embedded.ensure(data)


def pools(texts: list[str]) -> tuple[Any, ...]:
    """Raises CommandError for a text that describes no pool, and for two of one name."""
    try:
        return import_string(POOLS)(texts)
    except ValueError as error:
        raise CommandError(f"--pool {error}") from None


def host_header() -> str:
    """An allowed host name for the health check."""
    names = [name.lstrip(".") for name in settings.ALLOWED_HOSTS if name != "*"]
    return names[0] if names else "localhost"
