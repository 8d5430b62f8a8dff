"""Hours of ordinary traffic, and what the service needs meanwhile: memory, open files, connections, dead rows."""
