"""Our books against the processors' own: what differs, what an operator does about it, and what nobody else looks at."""
