"""Operators' pages of plans, subscriptions, sign-ups and invitations."""

from typing import Any

from django.contrib import admin
from django.http import HttpRequest
from django.utils.safestring import SafeString

from payments.billing import dunning, operate
from payments.billing.pages.plan import LOOKS
from payments.models import Invitation, Plan, SignUp, Subscription
from payments.models.billing import Dunning, Paid
from payments.templatetags.billing import price
from registry.models import Tenant
from registry.operators.cells import exact, link_to, pill
from registry.operators.lists import TenantFilter
from registry.operators.reasoned import Reasoned
from registry.operators.scope import SUPERUSERS, TenantScoped
from registry.operators.sections import ACCESS, BILL


@admin.register(Plan)
class PlanAdmin(Reasoned):
    """Superusers only: plans are offered to all tenants. A price cannot be changed: another price is another plan."""

    section, place, purpose = BILL, 1, "Prices and shares that tenants can choose."
    tenant_path = ""
    add_roles = change_roles = act_roles = SUPERUSERS
    list_display = ["name", "slug", "costs", "fee_share", "trial_days", "offered"]
    list_filter = ["offered"]
    add_fields = ("slug", "name", "price", "currency", "fee_share", "trial_days", "position", "offered")
    change_fields = (*add_fields, "stripe_price")
    readonly_fields = ("slug", "price", "currency", "stripe_price")
    actions = [operate.WITHDRAW, operate.OFFER]

    def tenant_of(self, obj: Any) -> None:
        return None

    @admin.display(description="price", ordering="price")
    def costs(self, plan: Plan) -> str:
        return price(plan)


@admin.register(Subscription)
class SubscriptionAdmin(Reasoned):
    """A copy of what Stripe says; an operator can change only the end of a trial that Stripe does not know."""

    section, place, purpose = BILL, 2, "Who pays for which plan, and what follows when somebody does not."
    change_roles = SUPERUSERS
    list_display = ["tenant", "plan", "state", "step", "trial_end", "period_end", "past_due_since"]
    list_filter = [TenantFilter, "status", "dunning", "plan"]
    list_select_related = ["tenant", "plan"]
    search_fields = ["tenant__slug", "stripe_customer__exact", "stripe_subscription__exact"]
    change_fields = (
        "tenant_link", "plan", "state", "step", "meaning", "trial_end", "period_end", "cancel_at", "past_due_since",
        "stripe_customer", "stripe_subscription", "asked_at", "changed_at",
    )  # fmt: skip
    actions = None

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> list[str]:
        mine = () if obj is not None and not obj.stripe_subscription else ("trial_end",)
        return [name for name in self.change_fields if name != "trial_end"] + list(mine)

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:
        if "trial_end" in form.changed_data:  # the next run of dunning acts on the new date
            obj.status = Paid.TRIALING
            obj.past_due_since = None
        super().save_model(request, obj, form, change)

    @admin.display(description="tenant", ordering="tenant__slug")
    def tenant_link(self, subscription: Subscription) -> SafeString:
        return link_to(Tenant, subscription.pk, subscription.tenant)

    @admin.display(description="state", ordering="status")
    def state(self, subscription: Subscription) -> SafeString:
        look = LOOKS[subscription.status]
        return pill(look["shape"], look["colour"], look["word"])

    @admin.display(description="dunning", ordering="dunning")
    def step(self, subscription: Subscription) -> SafeString | str:
        step = Dunning(subscription.dunning)
        return "–" if step is Dunning.NONE else pill("◑", dunning.CONSEQUENCES[step].colour, step.label.lower())

    @admin.display(description="what it means")
    def meaning(self, subscription: Subscription) -> str:
        return dunning.CONSEQUENCES[Dunning(subscription.dunning)].banner or "All is well."


@admin.register(SignUp)
class SignUpAdmin(TenantScoped):
    section, place, purpose = ACCESS, 6, "Sign-ups that are not finished."
    list_display = ["tenant", "user", "step", "begun", "changed"]
    list_filter = ["step"]
    list_select_related = ["tenant", "user"]
    search_fields = ["tenant__slug", "user__username"]
    fields = ("tenant", "user", "step", "data", "begun", "changed")
    readonly_fields = fields
    actions = None

    @admin.display(description="started", ordering="created_at")
    def begun(self, sign_up: SignUp) -> SafeString | str:
        return exact(sign_up.created_at)

    @admin.display(description="last step", ordering="changed_at")
    def changed(self, sign_up: SignUp) -> SafeString | str:
        return exact(sign_up.changed_at)


@admin.register(Invitation)
class InvitationAdmin(TenantScoped):
    """Without their links, which the pages of the sign-up show to those who may invite."""

    section, place, purpose = ACCESS, 5, "Who was invited, and has accepted."
    list_display = ["email", "tenant", "role", "invited_by", "created_at", "accepted_at"]
    list_filter = [TenantFilter, "role", ("accepted_at", admin.EmptyFieldListFilter)]
    list_select_related = ["tenant"]
    search_fields = ["email", "tenant__slug"]
    fields = ("email", "tenant", "role", "invited_by", "created_at", "accepted_at")
    readonly_fields = fields
    actions = None
