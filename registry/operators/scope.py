"""Scope of a user in the admin and the console: the tenants whose rows they may see or change, by membership; superusers have all."""

from dataclasses import dataclass
from typing import Any, ClassVar

from django.contrib import admin
from django.contrib.auth import get_user_model
from django.db import models
from django.http import Http404, HttpRequest, HttpResponse

from registry.edge.typed_numbers import WholeNumberField
from registry.edge.viewer import MAY_ACT, SUPERUSER, Visitor
from registry.models import Membership, Tenant
from registry.operators.sections import OTHER, Section

type Roles = frozenset[str]
READ: Roles = frozenset(Membership.Role.values)
OPERATE: Roles = MAY_ACT - {SUPERUSER}
OWN: Roles = frozenset({Membership.Role.OWNER})
SUPERUSERS: Roles = frozenset({SUPERUSER})


@dataclass(frozen=True, slots=True)
class Scope:
    """A person's role in each of their tenants; `everything` for a superuser."""

    everything: bool
    roles: dict[int, str]  # tenant id → role

    def tenants(self, roles: Roles = READ) -> list[int]:
        return [tenant for tenant, role in self.roles.items() if role in roles]

    def allows(self, roles: Roles, tenant_id: int | None = None) -> bool:
        """Whether the person has one of `roles` in this tenant; without a tenant: in any tenant."""
        if self.everything:
            return True
        return self.roles.get(tenant_id) in roles if tenant_id else bool(self.tenants(roles))

    def narrow(self, queryset: models.QuerySet, path: str, roles: Roles = READ) -> models.QuerySet:
        """The rows of `queryset` of tenants in which the person has one of `roles`; `path` leads to a row's tenant."""
        return queryset if self.everything else queryset.filter(**{f"{path}__in": self.tenants(roles)})


NOBODY = Scope(everything=False, roles={})


def scope_of(request: HttpRequest) -> Scope:
    """The scope of the request's user, read once per request."""
    found = getattr(request, "_operator_scope", None)
    if found is None:
        found = request._operator_scope = _scope(request.user)  # type: ignore[attr-defined]
    return found


def _scope(user: Any) -> Scope:
    if not (user.is_active and user.is_staff):
        return NOBODY
    if user.is_superuser:
        return Scope(everything=True, roles={})
    return Scope(everything=False, roles=dict(Membership.objects.filter(user=user).values_list("tenant_id", "role")))


def require_act(visitor: Visitor) -> None:
    """Raises Http404 for a visitor of the console who may only look."""
    if not visitor.may_act:
        raise Http404


class TenantScoped(admin.ModelAdmin):
    """Admin pages of rows of a person's own tenants; the role of the membership decides, not Django's permissions.

    Nothing can be deleted in the admin: rows of payments name tenants and processors without a foreign key.
    """

    section: ClassVar[Section] = OTHER  # of the first page
    place: ClassVar[int] = 99  # within the section
    purpose: ClassVar[str] = ""  # what one comes here for
    tenant_path: ClassVar[str] = "tenant_id"  # how a row names its tenant; "" for rows without a tenant
    add_roles: ClassVar[Roles] = frozenset()  # empty: nobody, superusers included
    change_roles: ClassVar[Roles] = frozenset()
    act_roles: ClassVar[Roles] = OPERATE  # for the actions
    show_full_result_count = False
    show_facets = admin.ShowFacets.NEVER  # facets count the rows of each filter
    list_per_page = 50
    list_max_show_all = 50

    formfield_overrides: ClassVar[dict[Any, Any]] = {
        kind: {"form_class": WholeNumberField, "widget": WholeNumberField.widget}
        for kind in (models.IntegerField, models.BigIntegerField)
    }

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        """The list, titled by its models: Django's title would ask to select one."""
        plural = str(self.opts.verbose_name_plural)
        return super().changelist_view(request, {"title": plural[:1].upper() + plural[1:], **(extra_context or {})})

    def get_queryset(self, request: HttpRequest) -> models.QuerySet:
        queryset = super().get_queryset(request)
        return scope_of(request).narrow(queryset, self.tenant_path) if self.tenant_path else queryset

    def tenant_of(self, obj: models.Model) -> int | None:
        return getattr(obj, self.tenant_path) if self.tenant_path else None

    def name_of(self, row: Any) -> str:
        """The row's name on a confirmation page."""
        tenant = getattr(row, "tenant", None)
        return f"{row} of {tenant}" if tenant else str(row)

    def may(self, request: HttpRequest, roles: Roles, obj: models.Model | None = None) -> bool:
        scope = scope_of(request)
        if not self.tenant_path:
            return bool(roles) and scope.everything
        return bool(roles) and scope.allows(roles, self.tenant_of(obj) if obj is not None else None)

    def has_module_permission(self, request: HttpRequest) -> bool:
        return self.may(request, READ)

    def has_view_permission(self, request: HttpRequest, obj: models.Model | None = None) -> bool:
        return self.may(request, READ, obj)

    def has_add_permission(self, request: HttpRequest) -> bool:
        return self.may(request, self.add_roles)

    def has_change_permission(self, request: HttpRequest, obj: models.Model | None = None) -> bool:
        return self.may(request, self.change_roles, obj)

    def has_delete_permission(self, request: HttpRequest, obj: models.Model | None = None) -> bool:
        return False

    def has_act_permission(self, request: HttpRequest) -> bool:
        """Asked by Django for actions with `permissions=["act"]`."""
        return self.may(request, self.act_roles)

    def formfield_for_foreignkey(self, db_field: Any, request: HttpRequest, **kwargs: Any) -> Any:
        kwargs.setdefault("queryset", self._choices(db_field.remote_field.model, scope_of(request)))
        return super().formfield_for_foreignkey(db_field, request, **kwargs)

    def _choices(self, model: type[models.Model], scope: Scope) -> models.QuerySet:
        rows = model._default_manager.all()
        if model is Tenant:
            return scope.narrow(rows, "pk", self.add_roles | self.change_roles)
        if model is get_user_model():  # members of the person's own tenants only
            return rows if scope.everything else rows.filter(memberships__tenant__in=scope.tenants()).distinct()
        return scope.narrow(rows, "tenant_id")
