"""A consumer: a loop of pop, handle and ack that renews its lease meanwhile."""

import logging
from functools import partial
from typing import TYPE_CHECKING

from registry_client._io.blocking import Handler, StopSignal, finish, repeating
from registry_client._queue import Batch, ConsumerOptions
from registry_client._retry import Retry, Tries
from registry_client.errors import RegistryError

if TYPE_CHECKING:
    from registry_client._sync.queue import Queue

log = logging.getLogger("registry_client.consumer")

FIRST_RENEWAL = 0.3  # seconds; sooner than the shortest lease of a queue (1 s) ends
RENEWALS_PER_LEASE = 3
ERROR_LENGTH = 500  # characters of an exception that are kept with a failed message
PAUSES = Retry(budget=float("inf"), first=0.5, longest=10.0)  # between pops that fail


class Consumer:
    """Pops messages of a queue, a batch at a time, and passes them to a handler one after the other.

    A message is acked when the handler returns and failed when it raises; then the others of its partition wait for the retry.
    At least once: a message may be handled again after a lost lease or connection.
    """

    def __init__(self, queue: "Queue", name: str, handler: Handler, options: ConsumerOptions) -> None:
        self._queue, self._name, self._handler, self._options = queue, name, handler, options
        self._stop = StopSignal()

    def stop(self) -> None:
        """End `run` after the message in progress; the rest of the batch is returned to the queue."""
        self._stop.set()

    def run(self) -> None:
        """Consume until `stop`. Errors that allow it are retried without limit; others, such as a missing right, are raised."""
        tries = Tries(PAUSES)
        while not self._stop.is_set():
            try:
                self._batch()
                tries = Tries(PAUSES)
            except RegistryError as error:
                pause = tries.pause_after(error)
                if pause is None:
                    raise
                log.warning("consuming %s: %s; next try in %.1f s", self._name, error, pause)
                self._stop.wait(pause)

    def _batch(self) -> None:
        """Pop one batch of messages, handle them, and acknowledge all of them in one request."""
        options = self._options
        messages = self._queue.pop(
            self._name,
            partition=options.partition,
            group=options.group,
            batch=options.batch,
            wait=options.wait,
            partitions=options.partitions,
            start=options.start,
        )
        if not messages:
            return
        batch = Batch(messages)
        try:
            with repeating(partial(self._renew, batch), first=FIRST_RENEWAL, every=self._renew_every):
                self._handle(batch)
        finally:
            finish(partial(self._report, batch))

    def _handle(self, batch: Batch) -> None:
        for message in batch.messages:
            if self._stop.is_set() or batch.lost:
                return
            if message.partition_id in batch.failed:
                continue
            try:
                self._handler(message)
            except Exception as error:
                log.warning("message %s of %s failed", message.transaction_id, self._name, exc_info=True)
                batch.fail(message, f"{type(error).__name__}: {error}"[:ERROR_LENGTH])
            else:
                batch.complete(message)

    def _report(self, batch: Batch) -> None:
        acks = batch.acks()
        if not acks or batch.lost:
            return
        results = self._queue.ack_many(acks)
        if refused := [one for one in results if not one.success]:
            log.warning("%d messages of %s were not acked: %s", len(refused), self._name, refused[0].error)

    @property
    def _renew_every(self) -> float:
        return self._options.lease / RENEWALS_PER_LEASE

    def _renew(self, batch: Batch) -> None:
        """Extend the lease; note if it is lost. An error of the connection is no loss yet: the next renewal may succeed."""
        try:
            lease = batch.messages[0].lease_id
            extended = self._queue.extend(lease, self._options.lease, retry=Retry(budget=self._renew_every))
        except RegistryError as error:
            log.warning("lease of %s was not renewed: %s", self._name, error)
            return
        if not extended.success:
            log.warning("lease of %s is lost: %s", self._name, extended.error)
            batch.lost = True
