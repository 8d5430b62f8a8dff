"""Sign-up of a tenant: details, users, plan, payment, live. One row holds the step; every step may be repeated."""

import asyncio
from typing import Any
from uuid import UUID

from django.contrib.auth import get_user_model
from django.contrib.auth.hashers import make_password
from django.contrib.auth.models import AbstractUser
from django.contrib.auth.password_validation import validate_password
from django.core.exceptions import ValidationError
from django.db import IntegrityError
from django_async_backend.db.transaction import async_atomic

from payments.billing import subscriptions
from payments.billing.errors import StepRefused
from payments.models import Plan, SignUp
from payments.routing import accounts
from registry.currencies import CURRENCIES
from registry.data import clock
from registry.models import SLUG, Membership, Tenant
from registry.tenants import access, audit, mail

Step = SignUp.Step
STEPS = list(Step)
# Sandbox processors of a new tenant; real ones are added before it goes live.
SANDBOXES = (("default", "0.05"), ("fallback", "0.15"))
LONGEST_NAME = 200  # characters
NEVER_A_SLUG = frozenset({"admin", "api", "platform", "registry", "signup", "www"})


def people() -> Any:
    """The async manager of users; the type stubs do not know it."""
    return get_user_model().async_objects  # type: ignore[attr-defined]


class Details(dict[str, str]):
    """The fields of the first form: slug, name, currency, e-mail and password."""

    FIELDS = ("slug", "name", "currency", "email", "password")

    @classmethod
    def read(cls, form: Any) -> "Details":
        given = {name: str(form.get(name, "")) for name in cls.FIELDS}
        return cls({name: text if name == "password" else text.strip() for name, text in given.items()})


def check_details(given: Details, *, signed_in: bool) -> dict[str, str]:
    """Validate the fields. Returns one sentence per wrong field; uniqueness is checked by the database when it is written."""
    wrong: dict[str, str] = {}
    try:
        SLUG(given["slug"])
    except ValidationError:
        wrong["slug"] = "Use lower-case letters, digits and hyphens, at most 63, beginning with a letter or digit."
    if given["slug"] in NEVER_A_SLUG:
        wrong["slug"] = "This name is taken. Please choose another one."
    if not given["name"] or len(given["name"]) > LONGEST_NAME or not given["name"].isprintable():
        wrong["name"] = f"Say what your business is called, in at most {LONGEST_NAME} characters."
    if given["currency"].upper() not in CURRENCIES:
        wrong["currency"] = "Use a currency's code of three letters, such as BRL."
    if not signed_in:
        wrong |= check_person(given["email"], given["password"])
    return wrong


def check_person(email: str, password: str) -> dict[str, str]:
    wrong = {} if mail.is_address(email) else {"email": mail.NO_ADDRESS}
    try:
        if "\0" in password or len(password) > 1000:
            raise ValidationError(["This password cannot be used."])
        validate_password(password)
    except ValidationError as error:
        wrong["password"] = " ".join(error.messages)
    return wrong


async def begin(*, id: UUID, given: Details, user: Any | None) -> tuple[SignUp, Any]:
    """Create tenant, sandbox, owner and sign-up in one transaction.

    Raises StepRefused (422). The same form sent twice creates one tenant.
    """
    if wrong := check_details(given, signed_in=user is not None):
        raise _refused(wrong)
    digest = (
        await asyncio.to_thread(make_password, given["password"]) if user is None else ""
    )  # slow by design: in a thread
    try:
        async with async_atomic():
            return await _make(id, given, user, digest)
    except IntegrityError:
        if (known := await SignUp.async_objects.select_related("user", "tenant").filter(id=id).afirst()) is None:
            raise _refused(await _taken(given, user)) from None
        if await _is_them(known, given, user):
            return known, known.user
        raise _refused({"slug": "This sign-up belongs to another person. Please start again."}) from None


async def _make(id: UUID, given: Details, user: Any | None, digest: str) -> tuple[SignUp, Any]:
    if user is None:
        email = given["email"].lower()
        user = await people().acreate(username=email, email=email, password=digest)
    tenant = await access.create_tenant(slug=given["slug"], name=given["name"], currency=given["currency"].upper())
    await Membership.async_objects.acreate(tenant=tenant, user=user, role=Membership.Role.OWNER)
    await _record("tenant.sign_up", tenant, user)
    for name, fee in SANDBOXES:
        await accounts.add(tenant=tenant, name=name, kind="sandbox", fee=fee, actor=user.get_username())
    return await SignUp.async_objects.acreate(id=id, tenant=tenant, user=user), user


async def _taken(given: Details, user: Any | None) -> dict[str, str]:
    """Which unique field is taken already."""
    wrong = {}
    if await Tenant.async_objects.filter(slug=given["slug"]).aexists():
        wrong["slug"] = "This name is taken. Please choose another one."
    email = given["email"].lower()
    if user is None and await people().filter(username=email).aexists():
        wrong["email"] = "There is an account with this address. Sign in first, then come back here."
    return wrong or {"slug": "Another request was faster. Please submit the form again."}


async def _is_them(known: SignUp, given: Details, user: Any | None) -> bool:
    if user is not None:
        return user.pk == known.user_id
    right_address = known.user.get_username() == given["email"].lower()
    return right_address and await asyncio.to_thread(known.user.check_password, given["password"])


# -- Going on ------------------------------------------------------------------------------------------------------


async def of_user(id: UUID, user: Any) -> SignUp | None:
    """A sign-up of this user, who must own its active tenant; None otherwise."""
    return await _mine(user).select_related("tenant", "user").filter(id=id).afirst()


async def latest(user: Any) -> SignUp | None:
    """The user's latest sign-up, or None."""
    return await _mine(user).exclude(step=Step.LIVE).order_by("-created_at").afirst()


def _mine(user: Any) -> Any:
    """Only while the user owns the tenant: the pages create keys and invite owners."""
    return SignUp.async_objects.filter(
        user_id=user.pk,
        tenant__status=Tenant.Status.ACTIVE,
        tenant__memberships__user_id=user.pk,
        tenant__memberships__role=Membership.Role.OWNER,
    )


def reached(sign_up: SignUp, step: str) -> bool:
    return STEPS.index(Step(step)) <= STEPS.index(Step(sign_up.step))


async def go_on(sign_up: SignUp, step: Step) -> None:
    """Store that `step` was reached. Going back never lowers it."""
    if reached(sign_up, step):
        return
    earlier = [one.value for one in STEPS[: STEPS.index(step)]]
    moved = SignUp.async_objects.filter(pk=sign_up.pk, step__in=earlier)
    await moved.aupdate(step=step, changed_at=clock.now())
    sign_up.step = step


async def rename(sign_up: SignUp, *, name: str) -> None:
    """Change the tenant's name. Raises StepRefused (422)."""
    name = name.strip()
    if not name or len(name) > LONGEST_NAME or not name.isprintable():
        raise _refused({"name": f"Say what your business is called, in at most {LONGEST_NAME} characters."})
    if name != sign_up.tenant.name:
        async with async_atomic():
            await Tenant.async_objects.filter(pk=sign_up.pk).aupdate(name=name)
            await _record("tenant.rename", sign_up.tenant, sign_up.user, name=[sign_up.tenant.name, name])


async def choose(sign_up: SignUp, slug: str) -> Plan:
    """Store the chosen plan; nothing is charged before the next step. Raises StepRefused (422)."""
    plan = await Plan.async_objects.filter(slug=slug[:63], offered=True).afirst() if "\0" not in slug else None
    if plan is None:
        raise _refused({"plan": "Please choose one of these plans."})
    await SignUp.async_objects.filter(pk=sign_up.pk).aupdate(data={**sign_up.data, "plan": plan.slug})
    sign_up.data = {**sign_up.data, "plan": plan.slug}
    await go_on(sign_up, Step.PAYMENT)
    return plan


async def chosen(sign_up: SignUp) -> Plan | None:
    return await Plan.async_objects.filter(slug=sign_up.data.get("plan", "")).afirst()


async def start_plan(sign_up: SignUp, plan: Plan) -> None:
    """Begin the plan without a card: free, or on trial."""
    await subscriptions.begin(tenant=sign_up.tenant, plan=plan, actor=sign_up.user.get_username())
    await go_on(sign_up, Step.LIVE)


def _refused(wrong: dict[str, str]) -> StepRefused:
    return StepRefused(errors=[{"field": field, "message": message} for field, message in wrong.items()])


async def _record(action: str, tenant: Tenant, user: AbstractUser, **detail: Any) -> None:
    actor = user.get_username()
    await audit.record(actor=actor, action=action, target=f"tenant {tenant.slug}", tenant_id=tenant.pk, detail=detail)
