"""The message queue: partitions in strict order, leased to consumer groups, on PostgreSQL."""


async def close() -> None:
    """End what the running loop holds of the message queue."""
    from queueing.broker import long_polls, traffic

    await long_polls.close()
    await traffic.close()
