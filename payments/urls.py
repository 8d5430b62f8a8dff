"""The routes of payments: of the API, and of the pages. Routes of ninja's are declared with their views."""

from django.conf import settings
from django.contrib.auth.views import LogoutView
from django.urls import path

from payments.api import accept, batch, changes, events, payments  # noqa: F401 - the routes of two are ninja's
from payments.billing import api as billing_api
from payments.billing.pages import password, plan, signup
from payments.billing.pages import team as _team  # noqa: F401 - a part of the page of the team
from payments.billing.pages.login import Login
from payments.inbound import api as inbound_api
from payments.pages import balance, discrepancies, home, payer, payment, reversals, simulation
from payments.pages import payments as payment_pages
from payments.pages import settings as _settings  # noqa: F401 - a part of the page of settings
from payments.refunds import api as refunds_api  # noqa: F401 - its routes are ninja's
from payments.refunds import pages as refund_pages
from payments.routing.pages import processors as processor_pages
from payments.routing.pages import simulation as routing_pages
from registry.edge.handler import by_method
from registry.edge.navigation import EVERYBODY, NavigationEntry, register

api = [
    path("payments", by_method(POST=accept.accept, GET=payments.browse), name="payments"),
    path("payments/batch", by_method(POST=batch.accept_batch), name="payments_batch"),
    path("webhooks/billing", billing_api.accept, name="webhooks_billing"),
    path("webhooks/stripe/<str:account>", inbound_api.accept, name="webhooks_stripe"),
]
pages = [
    path("", home.home, name="home"),
    path("overview", home.overview, name="overview"),
    path("payments/list", payment_pages.payments, name="payment_list"),
    path("payments/list/rows", payment_pages.payment_rows, name="payment_rows"),
    path("payments/list/export", payment_pages.export_payments, name="payment_export"),
    path("payments/<uuid:correlation_id>/live", payment.payment_live, name="payment_live"),
    path("payments/<uuid:correlation_id>/act", payment.payment_act, name="payment_act"),
    path("payments/<uuid:correlation_id>/look", payer.payment_look, name="payment_look"),
    path("payments/<uuid:correlation_id>/refund", refund_pages.refund, name="payment_refund"),
    path("processors", processor_pages.processors, name="processors"),
    path("processors/<slug:name>", processor_pages.processor, name="processor"),
    path("routing", routing_pages.simulation, name="routing"),
    path("refunds/list", reversals.refunds, name="refund_list"),
    path("refunds/<uuid:refund_id>/act", reversals.refund_act, name="refund_act"),
    path("disputes/list", reversals.disputes, name="dispute_list"),
    path("discrepancies/list", discrepancies.discrepancies, name="discrepancy_list"),
    path("discrepancies/<int:number>/act", discrepancies.discrepancy_act, name="discrepancy_act"),
    path("balance", balance.balance, name="balance"),
    path("processors/<slug:name>/behaviour", simulation.set_behaviour, name="set_behaviour"),
    path("test-payment", simulation.send_test_payment, name="send_test_payment"),
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
    path("password", password.forgotten, name="password"),
    path("password/<str:id>/<str:token>", password.new, name="password_new"),
    path("login", Login.as_view(extra_context={"sign_up": settings.SIGN_UP}), name="login"),
    path("logout", LogoutView.as_view(next_page="/login"), name="logout"),
]

register(
    NavigationEntry(label="Home", path="/", order=0, below=("/overview", "/test-payment"), shown_to=EVERYBODY),
    NavigationEntry(label="Payments", path="/payments/list", order=10, below=("/payments",), shown_to=EVERYBODY),
    NavigationEntry(label="Processors", path="/processors", group="Operations", order=10, below=("/routing",)),
    NavigationEntry(label="Refunds", path="/refunds/list", order=20, below=("/refunds",)),
    NavigationEntry(label="Disputes", path="/disputes/list", order=30, below=("/disputes",)),
    NavigationEntry(label="Discrepancies", path="/discrepancies/list", order=35, below=("/discrepancies",)),
    NavigationEntry(label="Balance and ledger", path="/balance", order=40),
    NavigationEntry(label="Plan", path="/plan", group="Account", order=20),
)
