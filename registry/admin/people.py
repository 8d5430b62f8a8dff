"""Operators' page of users. Memberships decide what a user may do, not Django's groups and permissions, which have no page."""

from typing import Any, ClassVar

from django.contrib import admin
from django.contrib.auth import get_user_model
from django.contrib.auth.admin import UserAdmin
from django.contrib.auth.models import Group
from django.http import HttpRequest, HttpResponse
from django.utils.safestring import SafeString

from registry.operators.cells import exact
from registry.operators.sections import ACCESS

Person = get_user_model()
admin.site.unregister(Person)
admin.site.unregister(Group)  # else "Groups" would stand beside the consumer groups of queues, and decide nothing


@admin.register(Person)
class PersonAdmin(UserAdmin):
    """Superusers only, by Django's own permissions."""

    section, place, purpose = ACCESS, 4, "Accounts, passwords, superusers."
    list_display = ["username", "email", "is_staff", "is_superuser", "is_active", "joined", "signed_in"]
    list_filter: ClassVar[Any] = ["is_staff", "is_superuser", "is_active"]
    fieldsets = (
        (None, {"fields": ("username", "password")}),
        ("Name", {"fields": ("first_name", "last_name", "email")}),
        ("Rights", {"fields": ("is_active", "is_staff", "is_superuser")}),
        ("Times", {"fields": ("last_login", "date_joined")}),
    )
    readonly_fields = ("last_login", "date_joined")
    filter_horizontal = ()

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        """The list, titled as all others: Django's title would ask to select a user."""
        return super().changelist_view(request, {"title": "Users", **(extra_context or {})})

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """An account that is not active any more keeps its name for the audit log."""
        return False

    @admin.display(description="created", ordering="date_joined")
    def joined(self, person: Any) -> SafeString | str:
        return exact(person.date_joined)

    @admin.display(description="last sign-in", ordering="last_login")
    def signed_in(self, person: Any) -> SafeString | str:
        return exact(person.last_login)
