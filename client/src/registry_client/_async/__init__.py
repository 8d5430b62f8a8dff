"""The asynchronous half of the client. The blocking half, _sync, is generated from it: `make client-sync`."""
