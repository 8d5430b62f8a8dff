"""Schedules of jobs: cron expressions whose due times submit jobs (contract section 6)."""
