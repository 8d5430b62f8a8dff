"""Addresses of the sign-up, of invitations and of the plan's page."""

from django.urls import path

from payments.billing import plan_pages, signup_pages

urlpatterns = [
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
]
