"""The measured pages, and the merchant's session by which they are read."""

import http.client
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from urllib.parse import urlencode

from bench.console.fill import Sample
from bench.place import ROOT, Place

PAUSE = (
    1.6  # seconds before each page: pages keep figures in memory for up to 10 s, and there are more than seven pages
)


@dataclass(frozen=True)
class Page:
    """A page, its query, and a text that it must have."""

    name: str
    path: str
    query: Callable[[Sample], dict[str, str]] = lambda sample: {}
    says: str = "Acme"

    def address(self, sample: Sample) -> str:
        return f"{self.path}?{urlencode({'tenant': 'bench', **self.query(sample)})}"


def days_ago(days: int) -> str:
    return (datetime.now(UTC) - timedelta(days=days)).strftime("%Y-%m-%dT%H:%M")


PAGES = (
    Page("home, 1 h", "/", lambda _: {"range": "1h"}),
    Page("home, 24 h", "/", lambda _: {"range": "24h"}),
    Page("home, 7 d", "/", lambda _: {"range": "7d"}),
    Page("home, 30 d", "/", lambda _: {"range": "30d"}),
    Page("payments", "/payments/list"),
    Page("payments, succeeded", "/payments/list", lambda _: {"status": "succeeded"}),
    Page("payments, failed", "/payments/list", lambda _: {"status": "failed"}),
    Page("payments, refunded", "/payments/list", lambda _: {"status": "refunded"}),
    Page("payments, disputed", "/payments/list", lambda _: {"status": "disputed"}),
    Page("payments, needs attention", "/payments/list", lambda _: {"status": "attention"}),
    Page("payments at a processor", "/payments/list", lambda _: {"processor": "fallback", "period": "30d"}),
    Page("search, id", "/payments/list", lambda sample: {"q": str(sample.id)[:8]}),
    Page("search, reference", "/payments/list", lambda sample: {"q": sample.reference}),
    Page("search, amount", "/payments/list", lambda sample: {"q": sample.amount}),
    Page("search, words", "/payments/list", lambda _: {"q": "order 99"}),
    Page("search, metadata", "/payments/list", lambda sample: {"q": sample.order}),
    Page("search, nothing found", "/payments/list", lambda _: {"q": "no such words"}),
    Page("refunds", "/refunds/list"),
    Page("refunds, searched", "/refunds/list", lambda _: {"q": "no such words"}),
    Page("disputes", "/disputes/list"),
    Page("balance and ledger", "/balance"),
    Page("ledger, a day three weeks ago", "/balance", lambda _: {"from": days_ago(21), "to": days_ago(20)}),
)

# In the service's environment: an owner of the tenant, and the key of her session.
SIGN_IN = """
import django
django.setup()
from django.contrib.auth import get_user_model
from django.test import Client
from registry.models import Membership, Tenant
Tenant.objects.filter(slug="bench").update(name="Acme")
owner = get_user_model().objects.create_user("ana")
Membership.objects.create(tenant=Tenant.objects.get(slug="bench"), user=owner, role="owner")
browser = Client()
browser.force_login(owner)
print(browser.cookies["sessionid"].value)
"""


@contextmanager
def reader(here: Place, port: int) -> Iterator[Callable[[str, Page], float]]:
    """Read a page over a kept-alive connection; returns the milliseconds."""
    session = subprocess.run(
        [sys.executable, "-c", SIGN_IN], cwd=ROOT, env=here.environment, capture_output=True, text=True, check=True
    ).stdout.split()[-1]
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)

    def read(address: str, page: Page) -> float:
        time.sleep(PAUSE)
        start = time.perf_counter()
        connection.request("GET", address, headers={"Cookie": f"sessionid={session}"})
        answer = connection.getresponse()
        text = answer.read().decode()
        took = 1000 * (time.perf_counter() - start)
        if answer.status != 200 or page.says not in text:
            raise AssertionError(f"{address} answered {answer.status}: {text[:2000]}")
        return took

    try:
        yield read
    finally:
        connection.close()
