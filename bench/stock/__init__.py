"""The same endpoint in a plain Django project: stock handler, stock ORM, stock backend, stock pool."""
