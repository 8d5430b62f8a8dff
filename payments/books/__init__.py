"""Events, the ledger, summaries, and queries of payments."""
