"""PostgreSQL and Valkey from wheels, and the whole service in the foreground (`up`)."""
