"""One format for times, to the second and with the zone: 2026-12-01 04:48:11 UTC. `cells.exact` writes the same."""

DATE_FORMAT = SHORT_DATE_FORMAT = "Y-m-d"
TIME_FORMAT = "H:i:s e"
DATETIME_FORMAT = SHORT_DATETIME_FORMAT = "Y-m-d H:i:s e"
