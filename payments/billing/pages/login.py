"""Sign-in for pages and admin. Tries are counted by address before the slow password hash is computed."""

from typing import Any

from django.contrib.admin.forms import AdminAuthenticationForm
from django.contrib.auth.forms import AuthenticationForm
from django.contrib.auth.views import LoginView
from django.core.exceptions import ValidationError
from django.http import HttpResponse

from payments.billing import limits
from registry.errors import TooManyRequests


class Counted(AuthenticationForm):
    """A login form with a rate limit by address, for right and wrong passwords alike."""

    refused: TooManyRequests | None = None

    def clean(self) -> dict[str, Any]:
        try:
            limits.count_sync(self.request, limits.LOGINS, "login")  # type: ignore[arg-type]  # both views pass a request
        except TooManyRequests as error:
            self.refused = error
            raise ValidationError(error.detail) from None
        return super().clean()


class AdminLogin(Counted, AdminAuthenticationForm):
    """The admin's login, with its message for users who are not staff."""


class Login(LoginView):
    """The pages' login; answers 429 with a message after too many tries."""

    authentication_form = Counted
    template_name = "registry/login.html"
    redirect_authenticated_user = True

    def form_invalid(self, form: Any) -> HttpResponse:
        if form.refused is None:
            return self.render_to_response(self.get_context_data(form=form))
        return self.render_to_response(self.get_context_data(form=form), status=429, headers=form.refused.headers)
