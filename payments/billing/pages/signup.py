"""The pages of the sign-up: one form per step. Each works without JavaScript, when sent twice, in two tabs and after a pause."""

from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import urlencode
from uuid import UUID, uuid4

from django.conf import settings
from django.contrib.auth import alogin
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse

from payments.billing import invitations, limits, platform, readiness, signup
from payments.billing.errors import AlreadySubscribed, BillingAway, BillingOff, InvitationInvalid, NotReady, StepRefused
from payments.billing.pages.plan import checks_of
from payments.billing.signup import Details, Step
from payments.models import Plan, SignUp, Subscription
from registry.edge.pages import PageRequest, address_of, page
from registry.edge.unique import is_empty
from registry.errors import TooManyRequests
from registry.models import ApiKey, Membership
from registry.tenants import keys

BACKEND = "django.contrib.auth.backends.ModelBackend"

type StepView = Callable[[PageRequest, SignUp], Awaitable[HttpResponse]]


# -- The first step, before there is a user ------------------------------------------------------------------------


@page("GET", "HEAD", "POST")
async def start(request: PageRequest) -> HttpResponse:
    """The details of a new tenant. A user who has begun a sign-up continues at their last step."""
    if not settings.SIGN_UP:
        return render(request, "payments/signup/closed.html", status=403)
    user = await request.auser()
    known = user if user.is_authenticated else None
    if request.method == "POST":
        return await _begin(request, known)
    if known and "new" not in request.GET and (left := await signup.latest(known)):
        return _to(left, left.step)
    return _details(request, {"currency": "BRL", "id": str(uuid4())}, {}, known)


async def _begin(request: PageRequest, user: Any | None) -> HttpResponse:
    given = Details.read(request.POST)
    shown = {**given, "password": "", "id": request.POST.get("id", "")}
    try:
        await limits.count(request, limits.SIGN_UPS, "sign-up")
        id = UUID(shown["id"])
        if is_empty(id):
            raise ValueError("nobody's id")
        sign_up, owner = await signup.begin(id=id, given=given, user=user)
    except ValueError:
        return _details(request, {**shown, "id": str(uuid4())}, {"form": "Please send this form again."}, user)
    except TooManyRequests as error:
        return _refused(_details(request, shown, {"form": error.detail}, user, status=429), error)
    except StepRefused as error:
        return _details(request, shown, _wrong(error), user)
    if user is None:
        await alogin(request, owner, backend=BACKEND)
    return _to(sign_up, Step.USERS)


def _details(
    request: HttpRequest, given: dict[str, str], wrong: dict[str, str], user: Any | None, *, status: int = 422
) -> HttpResponse:
    context = {"given": given, "wrong": wrong, "person": user, "steps": _steps(None, Step.DETAILS)}
    return render(request, "payments/signup/details.html", context, status=status if wrong else 200)


def _refused(response: HttpResponse, error: TooManyRequests) -> HttpResponse:
    for name, value in error.headers.items():
        response[name] = value
    return response


# -- The other steps, for the user of the sign-up --------------------------------------------------------------------


def step_page(step: Step) -> Callable[[StepView], Callable[..., Any]]:
    """Decorator of a step's page: only the sign-up's own user sees it, and only after the steps before it."""

    def wrap(view: StepView) -> Callable[..., Any]:
        @page("GET", "HEAD", "POST")
        async def answer(request: PageRequest, id: UUID) -> HttpResponse:
            user = await request.auser()
            if not user.is_authenticated:
                return redirect(f"{settings.LOGIN_URL}?{urlencode({'next': request.get_full_path()})}")
            sign_up = await signup.of_user(id, user)
            if sign_up is None:
                raise Http404
            if not signup.reached(sign_up, step):
                return _to(sign_up, sign_up.step)
            if request.method == "POST":
                try:
                    await limits.count(request, limits.CHANGES, "sign-up step")
                except TooManyRequests as error:
                    wait = render(request, "payments/signup/wait.html", {"says": error.detail}, status=429)
                    return _refused(wait, error)
            return await view(request, sign_up)

        return answer

    return wrap


def _to(sign_up: SignUp, step: str) -> HttpResponse:
    return redirect(reverse(f"signup_{step}", args=[sign_up.id]))


def _steps(sign_up: SignUp | None, here: Step) -> list[dict[str, Any]]:
    """The progress bar: which steps are done, which one is current, and their addresses."""
    return [
        {
            "word": one.label,
            "here": one == here,
            "done": sign_up is not None and signup.STEPS.index(one) < signup.STEPS.index(Step(sign_up.step)),
            "link": reverse(f"signup_{one}", args=[sign_up.id]) if sign_up and signup.reached(sign_up, one) else "",
        }
        for one in signup.STEPS
    ]


def _page(
    request: HttpRequest, sign_up: SignUp, step: Step, *, wrong: dict[str, str] | None = None, **more: Any
) -> HttpResponse:
    context = {
        "sign_up": sign_up,
        "tenant": sign_up.tenant,
        "steps": _steps(sign_up, step),
        "wrong": wrong or {},
        **more,
    }
    return render(request, f"payments/signup/{step}.html", context, status=422 if wrong else 200)


def _wrong(error: StepRefused) -> dict[str, str]:
    return {e["field"]: e["message"] for e in error.errors} or {"form": error.detail}


@step_page(Step.DETAILS)
async def details(request: PageRequest, sign_up: SignUp) -> HttpResponse:
    """The details step; only the name can still be changed."""
    tenant = sign_up.tenant
    given = {"slug": tenant.slug, "name": tenant.name, "currency": tenant.currency, "email": sign_up.user.email}
    if request.method == "POST":
        given["name"] = request.POST.get("name", "")
        try:
            await signup.rename(sign_up, name=given["name"])
            return _to(sign_up, Step.USERS)
        except StepRefused as error:
            return _page(request, sign_up, Step.DETAILS, given=given, wrong=_wrong(error), kept=True)
    return _page(request, sign_up, Step.DETAILS, given=given, kept=True)


@step_page(Step.USERS)
async def users(request: PageRequest, sign_up: SignUp) -> HttpResponse:
    """Invite users. Each link is shown here, and sent by e-mail if there is a mail server."""
    wrong: dict[str, str] = {}
    if request.method == "POST":
        match request.POST.get("do"):
            case "next":
                await signup.go_on(sign_up, Step.PLAN)
                return _to(sign_up, Step.PLAN)
            case "withdraw":
                number = request.POST.get("invitation", "")
                if number.isascii() and number.isdigit() and len(number) < 19:
                    await invitations.withdraw(tenant=sign_up.tenant, id=int(number), by=sign_up.user.get_username())
                return _to(sign_up, Step.USERS)
        try:
            await invitations.invite(
                tenant=sign_up.tenant,
                email=request.POST.get("email", ""),
                role=request.POST.get("role", ""),
                by=sign_up.user.get_username(),
                home=address_of(request),
            )
            return _to(sign_up, Step.USERS)
        except StepRefused as error:
            wrong = _wrong(error)
        except TooManyRequests as error:
            wrong = {"email": error.detail}
    found = await invitations.of_tenant(sign_up.pk)
    return _page(
        request,
        sign_up,
        Step.USERS,
        wrong=wrong,
        given=request.POST,
        mails=bool(settings.EMAIL_URL),
        roles=Membership.Role.choices,
        invitations=[
            {"row": one, "link": "" if one.accepted_at else address_of(request) + invitations.link(one)}
            for one in found
        ],
    )


@step_page(Step.PLAN)
async def plan(request: PageRequest, sign_up: SignUp) -> HttpResponse:
    wrong: dict[str, str] = {}
    if request.method == "POST":
        try:
            await signup.choose(sign_up, request.POST.get("plan", ""))
            return _to(sign_up, Step.PAYMENT)
        except StepRefused as error:
            wrong = _wrong(error)
    offered = [one async for one in Plan.async_objects.filter(offered=True)]
    chosen = sign_up.data.get("plan", "")
    return _page(request, sign_up, Step.PLAN, wrong=wrong, plans=offered, chosen=chosen, billing=platform.is_on())


@step_page(Step.PAYMENT)
async def payment(request: PageRequest, sign_up: SignUp) -> HttpResponse:
    """The payment step: free, trial, or Stripe's checkout, which is a link because forms may not lead to another site (CSP)."""
    chosen = await signup.chosen(sign_up)
    if chosen is None:
        return _to(sign_up, Step.PLAN)
    wrong: dict[str, str] = {}
    leads_to = ""
    if request.method == "POST":
        try:
            if request.POST.get("do") != "card":
                await _start_without_card(sign_up, chosen)
                return _to(sign_up, Step.LIVE)
            leads_to = await _checkout(request, sign_up, chosen)
        except StepRefused as error:
            wrong = _wrong(error)
        except (AlreadySubscribed, BillingAway, BillingOff) as error:
            wrong = {"form": error.detail}
    found = await Subscription.async_objects.select_related("plan").filter(pk=sign_up.pk).afirst()
    return _page(
        request,
        sign_up,
        Step.PAYMENT,
        wrong=wrong,
        plan=chosen,
        leads_to=leads_to,
        billing=platform.is_on(),
        subscription=found if found and found.stripe_subscription else None,
    )


async def _start_without_card(sign_up: SignUp, chosen: Plan) -> None:
    known = await Subscription.async_objects.filter(pk=sign_up.pk).exclude(stripe_subscription="").aexists()
    if known:  # paid for in another tab
        await signup.go_on(sign_up, Step.LIVE)
        return
    if chosen.price and not chosen.trial_days:
        raise StepRefused("This plan has no trial. Please choose another one, or pay by card.")
    await signup.start_plan(sign_up, chosen)


async def _checkout(request: HttpRequest, sign_up: SignUp, chosen: Plan) -> str:
    here = request.build_absolute_uri(reverse("signup_payment", args=[sign_up.id]))
    done = request.build_absolute_uri(reverse("signup_paid", args=[sign_up.id]))
    return await platform.checkout(tenant=sign_up.tenant, plan=chosen, email=sign_up.user.email, back=here, done=done)


@step_page(Step.PAYMENT)
async def paid(request: PageRequest, sign_up: SignUp) -> HttpResponse:
    """Return address of Stripe's checkout page. Its parameters are not trusted: Stripe is asked."""
    chosen = await signup.chosen(sign_up)
    session = request.GET.get("session", "")[:255]
    says = "Stripe has no payment yet. If you have paid, please reload this page in a moment."
    try:
        if session and await platform.copy_checkout(tenant_id=sign_up.pk, session_id=session):
            await signup.go_on(sign_up, Step.LIVE)
            return _to(sign_up, Step.LIVE)
    except (BillingAway, BillingOff) as error:
        says = error.detail
    return _page(
        request, sign_up, Step.PAYMENT, wrong={"form": says}, plan=chosen, billing=platform.is_on(), leads_to=""
    )


@step_page(Step.LIVE)
async def live(request: PageRequest, sign_up: SignUp) -> HttpResponse:
    """The last step: what can be tried in the sandbox, and which checks are missing before going live."""
    wrong: dict[str, str] = {}
    plain = ""
    actor = sign_up.user.get_username()
    if request.method == "POST":
        try:
            if request.POST.get("do") == "key":
                scopes = [ApiKey.Scope.READ.value, ApiKey.Scope.WRITE.value]
                _, plain = await keys.issue(tenant=sign_up.tenant, actor=actor, scopes=scopes, name="from the sign-up")
            elif request.POST.get("do") == "live":
                await readiness.go_live(tenant=sign_up.tenant, actor=actor)
                return _to(sign_up, Step.LIVE)
        except NotReady:
            wrong = {"form": "Some checks fail; the list shows what to do."}
    response = _page(
        request,
        sign_up,
        Step.LIVE,
        wrong=wrong,
        **checks_of(await readiness.look(sign_up.tenant)),
        may_own=True,
        key=plain,
        command=_command(request, plain),
    )
    if plain:
        response["Cache-Control"] = "no-store"
    return response


def _command(request: HttpRequest, key: str) -> str:
    head = f"-H 'Authorization: Bearer {key or 'YOUR_KEY'}' -H 'Content-Type: application/json'"
    return f"curl {address_of(request)}/payments {head} -d '{{\"amount\": 19.90}}'"


# -- Invitations ------------------------------------------------------------------------------------------------


@page("GET", "HEAD", "POST")
async def invitation(request: PageRequest, token: str) -> HttpResponse:
    """An invitation's page: choose a password, or accept with one button if signed in."""
    user = await request.auser()
    known = user if user.is_authenticated else None
    wrong: dict[str, str] = {}
    try:
        found = await invitations.read(token)
        if request.method == "POST":
            await limits.count(request, limits.SIGN_UPS, "invitation")
            member = await invitations.accept(invitation=found, user=known, password=request.POST.get("password", ""))
            if known is None:
                await alogin(request, member, backend=BACKEND)
            return redirect(f"/?{urlencode({'tenant': found.tenant.slug})}")
    except InvitationInvalid as error:
        return render(request, "payments/signup/worthless.html", {"says": error.detail}, status=404)
    except TooManyRequests as error:
        return render(request, "payments/signup/wait.html", {"says": error.detail}, status=429)
    except StepRefused as error:
        wrong = _wrong(error)
    context = {"invitation": found, "person": known, "wrong": wrong}
    return render(request, "payments/signup/invitation.html", context, status=422 if wrong else 200)
