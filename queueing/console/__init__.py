"""The console of the message queue: its pages for a tenant's people."""
