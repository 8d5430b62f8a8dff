"""Recompute the books of payments from their events and ledger lines: the parts of `check_books` that payments own."""
