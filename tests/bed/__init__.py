"""A test bed: processors of kind `http` as contract section 4 describes them, which get into trouble on command.

Beside them `tests.bed.stripe`: `async with sandbox_stripe() as stripe:` plays Stripe over HTTP in the test's loop, with its
address (`url`), keys, faults (`fails`), what it received and has, and webhooks that it signs and sends (`calls`).
`tests.bed.localstripe`: `with localstripe() as url:` runs an independent Stripe as a child, for what must hold at both.
"""

from tests.bed.books import Booking, Received
from tests.bed.processor import HttpProcessor
from tests.bed.remote import RemoteProcessor

__all__ = ["Booking", "HttpProcessor", "Received", "RemoteProcessor"]
