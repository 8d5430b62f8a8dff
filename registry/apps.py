"""The app of tenants and access, and the admin with the service's own site."""

from django.apps import AppConfig
from django.contrib.admin import apps as admin_apps


class RegistryConfig(AppConfig):
    name = "registry"
    default = True
    verbose_name = "Tenants and access"

    def ready(self) -> None:
        from registry.operators import book_checks, database_attention, key_attention, service_alerts  # noqa: F401 - chore, gauges, rules, sources
        from registry.operators.alerts import attention, retention  # noqa: F401 - its sources and chore
        from registry.operators.hosts import health  # noqa: F401 - its gauges, rule and source
        from registry.tenants import audit_chain  # noqa: F401 - its chore and part of check_books


class AdminConfig(admin_apps.AdminConfig):
    """Django's admin, with the site of registry.operators.site."""

    default = False
    default_site = "registry.operators.site.OperationsSite"
