"""Logging of the whole service."""

import logging
from collections.abc import Mapping, MutableMapping
from typing import Any

import structlog

from registry.redaction import HIDDEN, SECRET_NAMES, redact
from registry.telemetry import changes
from registry.telemetry.context import PAYMENT, REQUEST, TENANT, TRACED
from registry.telemetry.output import LogOutput, stderr


def _with_context(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    for variable in (REQUEST, TENANT, PAYMENT):
        if value := variable.get():
            event.setdefault(variable.name, value)
    if spans := TRACED.get():
        event.setdefault("trace_id", spans[0].shown_id)
    return event


def _origin(config: Mapping[str, Any]) -> dict[str, str]:
    """Which host and which process of it write a line; nothing outside of `up`, whose lines a person reads at the terminal."""
    return {"host": config["host"], "process": config["process"]} if config["process"] else {}


def _redacted(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> dict[str, Any]:
    return {k: HIDDEN if SECRET_NAMES.search(k) else redact(v) for k, v in event.items()}


class Formatter(structlog.stdlib.ProcessorFormatter):
    """structlog's formatter; a record of changes becomes one line for each."""

    def __init__(self, *, readable: bool, origin: Mapping[str, str], **options: Any) -> None:
        super().__init__(**options)
        self._readable, self._origin = readable, origin

    def format(self, record: logging.LogRecord) -> str:
        lines = changes.formatted(record, readable=self._readable, origin=self._origin)
        return super().format(record) if lines is None else lines


class Handler(logging.Handler):
    """Writes each record to the output. Never waits for its reader."""

    def __init__(self, output: LogOutput) -> None:
        super().__init__()
        self._output = output

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._output.write(self.format(record).encode(errors="backslashreplace") + b"\n")
        except Exception:
            self.handleError(record)

    def flush(self) -> None:
        self._output.flush()


def _line_of_dropped(handler: logging.Handler, number: int) -> bytes:
    record = logging.LogRecord(__name__, logging.WARNING, "", 0, "log lines were dropped: nobody read them", (), None)
    record.lines = number
    return handler.format(record).encode() + b"\n"


def level_of_changes(*, on: bool) -> int:
    return logging.NOTSET if on else logging.WARNING


def configure_logging(config: dict[str, Any]) -> None:
    """Log to stderr, one line of JSON per event or readable text (LOG_FORMAT=console), with context and without secrets."""
    origin = _origin(config)
    shared: list[structlog.types.Processor] = [
        _with_context,
        lambda _logger, _method, event: {**origin, **event},
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.ExtraAdder(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
    ]
    renderer = (
        structlog.dev.ConsoleRenderer(colors=False)
        if config["format"] == "console"
        else structlog.processors.JSONRenderer()
    )
    formatter = Formatter(
        readable=config["format"] == "console",
        origin=origin,
        foreign_pre_chain=shared,
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, _redacted, renderer],
    )
    handler = Handler(stderr)
    handler.setFormatter(formatter)
    stderr.dropped_line = lambda number: _line_of_dropped(handler, number)
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(config["level"])
    for server in ("uvicorn", "uvicorn.error", "uvicorn.access", "daphne", "django.channels.server"):
        logging.getLogger(server).handlers, logging.getLogger(server).propagate = (
            [],
            True,
        )  # so that all lines pass our formatter
    logging.getLogger("psycopg").setLevel("ERROR")  # otherwise a line per failed connection; db_breaker.py logs it once
    logging.getLogger("django.security.DisallowedHost").setLevel(
        "CRITICAL"
    )  # otherwise a stack trace for each request with an unknown host, which gets a 400
    for noisy in ("rq.worker", "rq.cron", "asyncio", "uvicorn.access", "stripe"):
        logging.getLogger(noisy).setLevel("WARNING")
    changes.log.setLevel(level_of_changes(on=config["changes"]))
    structlog.configure(
        processors=[structlog.stdlib.filter_by_level, *shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
