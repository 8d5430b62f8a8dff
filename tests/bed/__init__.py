"""A test bed: processors of kind `http` as contract section 4 describes them, which get into trouble on command."""

from tests.bed.books import Booking, Received
from tests.bed.processor import HttpProcessor
from tests.bed.remote import RemoteProcessor

__all__ = ["Booking", "HttpProcessor", "Received", "RemoteProcessor"]
