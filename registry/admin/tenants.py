"""Operators' pages of tenants."""

from django.contrib import admin
from django.utils.html import format_html_join
from django.utils.safestring import SafeString

from registry.admin.belongings import BELONGINGS
from registry.admin.operate import RESUME, SUSPEND
from registry.models import Tenant
from registry.operators.cells import exact, link_to_list, pill
from registry.operators.lists import Attaching
from registry.operators.reasoned import Reasoned, ReasonedForm
from registry.operators.scope import SUPERUSERS
from registry.operators.sections import ACCESS

STATUS_LOOKS = {"active": ("●", "green"), "suspended": ("◑", "amber"), "closed": ("–", "grey")}


class TenantForm(ReasonedForm):
    def clean_currency(self) -> str:
        return self.cleaned_data["currency"].upper()  # the model checks whether there is such a currency

    def clean_patience(self) -> int:
        """An empty field leaves the value as it is."""
        given = self.cleaned_data["patience"]
        return self.instance.patience if given is None else given


@admin.register(Tenant)
class TenantAdmin(Attaching, Reasoned):
    section, place, purpose = ACCESS, 1, "Settings of a tenant, and links to all that belongs to it."
    tenant_path = "id"
    form = TenantForm
    add_roles = change_roles = act_roles = SUPERUSERS
    list_display = ["slug", "name", "state", "mode", "open", "currency", "belongings", "created"]
    list_filter = ["status", "mode", "open"]
    search_fields = ["slug", "name"]
    add_fields = ("slug", "name", "currency", "mode", "open", "max_amount", "patience", "trace_rate", "settings")
    # The mode cannot be changed: a live tenant that became a sandbox could be purged.
    change_fields = (
        "slug",
        "name",
        "status",
        "mode",
        "currency",
        "open",
        "max_amount",
        "patience",
        "trace_rate",
        "settings",
        "belongings",
        "created",
    )
    readonly_fields = ("slug", "mode", "status", "belongings", "created")
    actions = [SUSPEND, RESUME]

    def attach(self, rows: list[Tenant]) -> None:
        ids = [row.pk for row in rows]
        counts = [(belonging, belonging.count(ids)) for belonging in BELONGINGS]
        for row in rows:
            row.counted = [(belonging, found.get(row.pk, 0)) for belonging, found in counts]  # type: ignore[attr-defined]

    @admin.display(description="rows")
    def belongings(self, tenant: Tenant) -> SafeString:
        if not hasattr(tenant, "counted"):
            self.attach([tenant])
        return format_html_join(
            " · ",
            "{}",
            (
                (link_to_list(belonging.model, belonging.counted(count), tenant=tenant.slug),)
                for belonging, count in tenant.counted  # type: ignore[attr-defined]
            ),
        )

    @admin.display(description="created", ordering="created_at")
    def created(self, tenant: Tenant) -> SafeString | str:
        return exact(tenant.created_at)

    @admin.display(description="status", ordering="status")
    def state(self, tenant: Tenant) -> SafeString:
        return pill(*STATUS_LOOKS[tenant.status], tenant.get_status_display().lower())
