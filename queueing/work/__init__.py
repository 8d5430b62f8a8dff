"""Work: rows that are claimed, done and settled, and the processes that do it. The rows belong to other packages."""
