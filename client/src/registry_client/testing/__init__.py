"""A test double of the service, for an application's own tests: in memory, without a network, by the same API.

    fake = FakeRegistry()
    with fake.client() as client:
        payment = client.payments.submit("19.90")
        assert client.payments.wait(payment.correlation_id).status == "succeeded"

A payment is settled as soon as it is accepted, and a job runs at once; `fake.payments.holds()` and `fake.jobs.holds()` leave that to
the test. Requests of the API's other parts are 404.
"""

from registry_client.testing.job import JobFailed
from registry_client.testing.service import FakeRegistry
from registry_client.testing.webhooks import signed

__all__ = ["FakeRegistry", "JobFailed", "signed"]
