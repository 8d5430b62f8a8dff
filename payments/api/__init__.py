"""The API of payments over HTTP and websockets (contract sections 2 and 3)."""
