"""HTTP out: the client, and the guard against addresses inside."""
