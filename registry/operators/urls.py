"""Addresses of the console's pages for what belongs to a tenant itself."""

from django.urls import path

from registry.edge.navigation import OPERATORS, NavigationEntry, register
from registry.operators.pages import audit, keys, requests, settings, team

urlpatterns = [
    path("developers", keys.api_keys, name="keys"),
    path("developers/requests", requests.request_log, name="requests"),
    path("developers/requests/<int:id>", requests.api_request, name="request"),
    path("team", team.team, name="team"),
    path("settings", settings.settings, name="settings"),
    path("audit", audit.audit_log, name="audit"),
]

register(
    NavigationEntry(label="API keys", path="/developers", group="Developers", order=10),
    NavigationEntry(label="Request log", path="/developers/requests", group="Developers", order=15),
    NavigationEntry(label="Team", path="/team", group="Account", order=10),
    NavigationEntry(label="Settings", path="/settings", group="Account", order=30),
    NavigationEntry(label="Audit log", path="/audit", group="Account", order=40, shown_to=OPERATORS),
)
