"""Events that processors send: received, handled, fetched where they were not delivered."""
