"""PostgreSQL, Redis and what belongs to an event loop: pool, group commit, caches, the live hub."""
