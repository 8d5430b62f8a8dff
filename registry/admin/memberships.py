"""Operators' pages of memberships: who belongs to which tenant, in which role."""

from django.contrib import admin
from django.core.exceptions import ValidationError
from django.utils.safestring import SafeString

from registry.admin.operate import REMOVE_MEMBERS
from registry.models import Membership
from registry.operators.cells import exact
from registry.operators.lists import TenantFilter
from registry.operators.reasoned import Reasoned, ReasonedForm
from registry.operators.scope import OWN
from registry.operators.sections import ACCESS
from registry.tenants.members import LastOwner


class MembershipForm(ReasonedForm):
    def clean_role(self) -> str:
        """A tenant keeps an owner who can sign in. Its owners are locked, so that two of them cannot demote each other."""
        role, before = self.cleaned_data["role"], self.instance
        if before.pk and before.role == Membership.Role.OWNER != role:
            owners = Membership.objects.filter(tenant=before.tenant, role=before.role).order_by("pk")
            locked = [owner.pk for owner in owners.select_for_update()]
            others = Membership.objects.filter(pk__in=locked, user__is_active=True)
            if not others.exclude(pk=before.pk).exists():
                raise ValidationError(str(LastOwner()))
        return role


@admin.register(Membership)
class MembershipAdmin(Reasoned):
    section, place, purpose = ACCESS, 2, "Who belongs to which tenant, in which role."
    form = MembershipForm
    add_roles = change_roles = act_roles = OWN
    list_display = ["user", "tenant", "role", "created"]
    list_filter = [TenantFilter, "role"]
    list_select_related = ["user", "tenant"]
    search_fields = ["user__username", "user__email"]
    add_fields = ("tenant", "user", "role")
    change_fields = ("tenant", "user", "role", "created")
    readonly_fields = ("tenant", "user", "created")
    actions = [REMOVE_MEMBERS]

    @admin.display(description="member since", ordering="created_at")
    def created(self, membership: Membership) -> SafeString | str:
        return exact(membership.created_at)
