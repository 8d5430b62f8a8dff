"""What RQ's cron runs, and how often. Names only: the chores themselves are registered by the apps that own them."""

CHORES: dict[str, int] = {}  # name → seconds


def every(name: str, seconds: int) -> None:
    CHORES[name] = seconds
