"""The console's pages of jobs: the list, one job, schedules, and for superusers the workers."""
