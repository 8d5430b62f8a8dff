"""The kinds of processors. A new kind is one file (or package) here and one line below."""

from payments.processors.base import Processor
from payments.processors.http import HttpProcessor
from payments.processors.sandbox import SandboxProcessor
from payments.processors.stripe.processor import StripeProcessor

KINDS: dict[str, type[Processor]] = {kind.kind: kind for kind in (HttpProcessor, SandboxProcessor, StripeProcessor)}
