"""Addresses of the pages. The API's are in urls.py."""

from django.contrib.auth.views import LoginView, LogoutView
from django.urls import path

from payments import pages

urlpatterns = [
    path("", pages.dashboard, name="dashboard"),
    path("overview", pages.overview, name="overview"),
    path("payments/<uuid:correlation_id>/live", pages.payment_live, name="payment_live"),
    path("processors/<slug:name>/behaviour", pages.set_behaviour, name="set_behaviour"),
    path("test-payment", pages.send_test_payment, name="send_test_payment"),
    path(
        "login", LoginView.as_view(template_name="registry/login.html", redirect_authenticated_user=True), name="login"
    ),
    path("logout", LogoutView.as_view(next_page="/login"), name="logout"),
]
