"""Addresses of the pages. The API's are in urls.py."""

from django.conf import settings
from django.contrib.auth.views import LogoutView
from django.urls import path

from payments.billing.login import Login
from payments.billing.pages import urls
from payments.pages import payer, payments
from payments.refunds import pages as refund_pages

urlpatterns = [
    path("", payments.dashboard, name="dashboard"),
    path("overview", payments.overview, name="overview"),
    path("payments/<uuid:correlation_id>/live", payments.payment_live, name="payment_live"),
    path("payments/<uuid:correlation_id>/look", payer.payment_look, name="payment_look"),
    path("payments/<uuid:correlation_id>/refund", refund_pages.refund, name="payment_refund"),
    path("processors/<slug:name>/behaviour", payments.set_behaviour, name="set_behaviour"),
    path("test-payment", payments.send_test_payment, name="send_test_payment"),
    *urls.urlpatterns,
    path("login", Login.as_view(extra_context={"sign_up": settings.SIGN_UP}), name="login"),
    path("logout", LogoutView.as_view(next_page="/login"), name="logout"),
]
