"""Test call of a processor: whether it answers and accepts our key. It books nothing."""

import asyncio
from uuid import uuid4

import aiohttp
import stripe

from payments.processors import KINDS
from payments.processors.base import Account, Order, Result
from payments.processors.stripe.client import Clients, Unusable
from registry.data import clock, database
from registry.tenants.encryption import Sealed

PROBE_WITHIN = 5.0  # seconds for a processor to answer


async def fault_of(account: Account) -> str:
    """Call a processor. The problem in words, to follow its name; "" if there is none."""
    await database.release()  # the call may be slow
    try:
        async with asyncio.timeout(PROBE_WITHIN):
            if account.kind == "stripe":
                async with Clients() as clients:
                    await clients.of(account).v1.payment_intents.list_async({"limit": 1})
                return ""
            # Not its health call: a second caller would make it refuse the workers' calls.
            unknown = Order(correlation_id=uuid4(), amount=1, currency="BRL", requested_at=clock.now())
            async with KINDS[account.kind]() as client:
                outcome = await client.look_up(unknown, account)
            return "does not answer" if outcome.result is Result.UNKNOWN else ""
    except (Unusable, Sealed):
        return "has no usable key"
    except (stripe.AuthenticationError, stripe.PermissionError):
        return "refuses its key"
    except (stripe.StripeError, aiohttp.ClientError, OSError):  # a time-out is an OSError
        return "does not answer"
