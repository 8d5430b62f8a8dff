"""The API of jobs over HTTP and websockets (contract section 6)."""
