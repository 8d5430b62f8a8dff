"""Guarded action on workers: stop one, which finishes or gives back its rows and is replaced by a new process."""

from registry.operators.rows import guarded

stop = guarded(
    "worker.stop",
    label="Stop, and replace by a new process",
    warning="They claim nothing more, finish what they have in hand or give it back, and end. New ones start at once.",
    expects={"stop_requested": False},
    sets={"stop_requested": True},
)
