"""What happened: events, the ledger, questions about payments, summaries."""
