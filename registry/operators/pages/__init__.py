"""Pages of the console for what belongs to a tenant itself: API keys and their requests, members, settings, audit log."""
