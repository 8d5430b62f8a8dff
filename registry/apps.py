"""The app of tenants and access."""

from django.apps import AppConfig


class RegistryConfig(AppConfig):
    name = "registry"
    verbose_name = "Tenants and access"

    def ready(self) -> None:
        from registry.tenants import audit_chain  # noqa: F401 - its chore
