"""Work at processors: the base class of payments, refunds and inbound events."""

from abc import ABC
from collections.abc import Sequence

from psycopg import AsyncConnection

from payments.processors import KINDS
from payments.processors.base import Account, Processor
from payments.routing.routing import RoutingTable
from queueing.work.opened import Opened
from queueing.work.work import Keyed, Work
from registry.data import database
from registry.data.database import Row


class ProcessorWork[I: Keyed, O: Keyed](Work[I, O], ABC):
    """Work that needs tenants' accounts at processors. Processors stay open, by their address."""

    def __init__(self) -> None:
        super().__init__()
        self.routes = RoutingTable()
        self._processors: Opened[str, Processor] = Opened()

    async def prepare(self, conn: AsyncConnection, rows: Sequence[Row]) -> None:
        await self.load_routes(conn, {row[0] for row in rows})

    async def load_routes(self, conn: AsyncConnection, tenants: set[int]) -> None:
        await self.routes.load(tenants, lambda sql, params: database.rows(conn, sql, params))

    async def processor(self, account: Account) -> Processor:
        return await self._processors.get(account.endpoint, KINDS[account.kind])

    async def close(self) -> None:
        await super().close()
        await self._processors.close()
