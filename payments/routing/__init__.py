"""Choose the processor of a payment: accounts, the state of endpoints, dry runs of other rules."""
