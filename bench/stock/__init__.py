"""The same endpoint as a plain Django project would write it: stock handler, stock ORM, stock backend, stock pool."""
