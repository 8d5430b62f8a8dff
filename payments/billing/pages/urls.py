"""Addresses of the sign-up, of invitations and of the plan's page."""

from django.urls import path

from payments.billing.pages import plan, signup

urlpatterns = [
    path("signup", signup.start, name="signup"),
    path("signup/<uuid:id>/details", signup.details, name="signup_details"),
    path("signup/<uuid:id>/users", signup.users, name="signup_users"),
    path("signup/<uuid:id>/plan", signup.plan, name="signup_plan"),
    path("signup/<uuid:id>/payment", signup.payment, name="signup_payment"),
    path("signup/<uuid:id>/paid", signup.paid, name="signup_paid"),
    path("signup/<uuid:id>/live", signup.live, name="signup_live"),
    path("invitation/<str:token>", signup.invitation, name="invitation"),
    path("plan", plan.plan, name="plan"),
    path("plan/paid", plan.paid, name="plan_paid"),
]
