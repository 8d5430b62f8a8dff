"""Sections of the admin's first page: models grouped by what an operator does with them. Each admin page names its section."""

from typing import NamedTuple


class Section(NamedTuple):
    """A group of models: its place on the page, its title, and when one comes here."""

    place: int
    title: str
    purpose: str

    @property
    def anchor(self) -> str:
        return self.title.lower().replace(" ", "-")


LOOK_UP = Section(1, "Look up payments", "Find a payment, refund or dispute, and what happened to it.")
DECIDE = Section(2, "Decide what stopped", "Work that no worker tries again until somebody decides.")
BOOKS = Section(3, "Check the books", "What was booked, compared and recorded.")
ROUTE = Section(4, "Route payments", "Where payments are sent, and how healthy that is.")
WORK = Section(5, "Run work", "Workers, jobs, queues and webhooks.")
WATCH = Section(6, "Watch the service", "Alerts: what fired, who silenced it, and which messages were sent.")
ACCESS = Section(7, "Manage access", "Tenants, the people who belong to them, and their keys.")
BILL = Section(8, "Bill tenants", "Plans, and who subscribes to them.")
OTHER = Section(9, "Other", "Pages of apps that name no section.")
