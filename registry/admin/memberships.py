"""Operators' pages of memberships: who belongs to which tenant, in which role."""

from django.contrib import admin

from registry.admin.operate import REMOVE_MEMBERS
from registry.models import Membership
from registry.operators.lists import TenantFilter
from registry.operators.reasoned import Reasoned
from registry.operators.scope import OWN


@admin.register(Membership)
class MembershipAdmin(Reasoned):
    add_roles = change_roles = act_roles = OWN
    list_display = ["user", "tenant", "role", "created_at"]
    list_filter = [TenantFilter, "role"]
    list_select_related = ["user", "tenant"]
    search_fields = ["user__username", "user__email"]
    add_fields = ("tenant", "user", "role")
    change_fields = ("tenant", "user", "role", "created_at")
    readonly_fields = ("tenant", "user", "created_at")
    actions = [REMOVE_MEMBERS]
