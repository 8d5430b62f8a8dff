"""Background jobs: submitted by tenants and schedules, run by workers as a kind of work; contract section 6."""
