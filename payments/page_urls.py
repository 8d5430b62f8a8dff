"""Addresses of the pages. The API's are in urls.py."""

from django.contrib.auth.views import LoginView, LogoutView
from django.urls import path

from payments import pages, payer_pages, refund_pages
from payments.billing import plan_pages, signup_pages
from payments.webhooks import page_urls as webhook_urls
from payments.billing import urls as billing_urls

urlpatterns = [
    path("", pages.dashboard, name="dashboard"),
    path("overview", pages.overview, name="overview"),
    path("payments/<uuid:correlation_id>/live", pages.payment_live, name="payment_live"),
    path("payments/<uuid:correlation_id>/look", payer_pages.payment_look, name="payment_look"),
    path("payments/<uuid:correlation_id>/refund", refund_pages.refund, name="payment_refund"),
    path("processors/<slug:name>/behaviour", pages.set_behaviour, name="set_behaviour"),
    path("test-payment", pages.send_test_payment, name="send_test_payment"),
    *webhook_urls.urlpatterns,
    path("signup", signup_pages.start, name="signup"),
    path("signup/<uuid:id>/details", signup_pages.details, name="signup_details"),
    path("signup/<uuid:id>/users", signup_pages.users, name="signup_users"),
    path("signup/<uuid:id>/plan", signup_pages.plan, name="signup_plan"),
    path("signup/<uuid:id>/payment", signup_pages.payment, name="signup_payment"),
    path("signup/<uuid:id>/paid", signup_pages.paid, name="signup_paid"),
    path("signup/<uuid:id>/live", signup_pages.live, name="signup_live"),
    path("invitation/<str:token>", signup_pages.invitation, name="invitation"),
    path("plan", plan_pages.plan, name="plan"),
    path("plan/paid", plan_pages.paid, name="plan_paid"),
    *billing_urls.urlpatterns,
    path(
        "login", LoginView.as_view(template_name="registry/login.html", redirect_authenticated_user=True), name="login"
    ),
    path("logout", LogoutView.as_view(next_page="/login"), name="logout"),
]
