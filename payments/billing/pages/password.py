"""The pages of a forgotten password. Without a mail server they say whom to ask."""

from django.conf import settings
from django.http import HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse

from payments.billing import limits, passwords
from registry.edge.pages import PageRequest, address_of, page
from registry.errors import TooManyRequests
from registry.tenants.mail import NO_ADDRESS, is_address


@page("GET", "HEAD", "POST")
async def forgotten(request: PageRequest) -> HttpResponse:
    """Enter the e-mail address. The answer is the same whether there is such an account or not."""
    given = request.POST.get("email", "").strip()
    context = {"given": given, "mails": bool(settings.EMAIL_URL)}
    if request.method != "POST" or not settings.EMAIL_URL:
        return render(request, "payments/signup/password.html", context)
    if not is_address(given):
        return render(request, "payments/signup/password.html", {**context, "wrong": NO_ADDRESS}, status=422)
    try:
        await limits.count(request, limits.LOGINS, "password")
    except TooManyRequests as error:
        refused = render(request, "payments/signup/password.html", {**context, "wrong": error.detail}, status=429)
        refused["Retry-After"] = error.headers["Retry-After"]
        return refused
    await passwords.ask(address=given, where=address_of(request))
    return render(request, "payments/signup/password.html", {**context, "sent": True})


@page("GET", "HEAD", "POST")
async def new(request: PageRequest, id: str, token: str) -> HttpResponse:
    """Choose a new password, by the link of the e-mail."""
    user = await passwords.user_of(id, token)
    if user is None:
        return render(request, "payments/signup/password_new.html", {"worthless": True}, status=404)
    wrong = ""
    if request.method == "POST":
        password = request.POST.get("password", "")
        wrong = passwords.faults_of(user, password)
        if not wrong:
            if not await passwords.change(user, password):
                return render(request, "payments/signup/password_new.html", {"worthless": True}, status=404)
            return redirect(f"{reverse('login')}?changed=1")
    context = {"name": user.get_username(), "wrong": wrong}
    return render(request, "payments/signup/password_new.html", context, status=422 if wrong else 200)
