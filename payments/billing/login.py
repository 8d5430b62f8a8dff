"""Signing in, on the pages and in the admin: tries are counted by address before a password costs its slow hash."""

from typing import Any

from django.contrib.admin.forms import AdminAuthenticationForm
from django.contrib.auth.forms import AuthenticationForm
from django.contrib.auth.views import LoginView
from django.core.exceptions import ValidationError
from django.http import HttpResponse

from payments.billing import limits
from registry.errors import TooManyRequests


class Counted(AuthenticationForm):
    """A login that may be tried so many times a minute, with any password."""

    refused: TooManyRequests | None = None

    def clean(self) -> dict[str, Any]:
        try:
            limits.count_sync(self.request, limits.LOGINS, "login")  # type: ignore[arg-type]  # both views give one
        except TooManyRequests as error:
            self.refused = error
            raise ValidationError(error.detail) from None
        return super().clean()


class AdminLogin(Counted, AdminAuthenticationForm):
    """The admin's, with its own words for who is no member of staff."""


class Login(LoginView):
    """The pages' login; 429 with a sentence for who tries too often."""

    authentication_form = Counted
    template_name = "registry/login.html"
    redirect_authenticated_user = True

    def form_invalid(self, form: Any) -> HttpResponse:
        if form.refused is None:
            return self.render_to_response(self.get_context_data(form=form))
        return self.render_to_response(self.get_context_data(form=form), status=429, headers=form.refused.headers)
