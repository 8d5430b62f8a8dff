"""Admin pages of differences, dry runs and the audit chain."""

import html
import json
import re

import pytest
from django.urls import reverse

from payments.models import Difference, Payment, Processor, Reconciliation, SandboxBooking
from payments.reconciliation import comparison
from payments.states import SUCCEEDED
from registry.data.loop import sync_twin
from registry.models import AuditEntry
from tests.factories import make_person, make_processor, make_tenant
from tests.payments.comparing import MORNING, NOON, book_both, book_here, book_there
from tests.payments.test_dry_run import sent
from tests.registry.test_admin import as_person, choose, confirm, listing, page, said, text
from tests.registry.test_audit_chain import tamper, write

WHY = "the provider explained it"


@pytest.fixture
def acme():
    return make_tenant("acme")


@pytest.fixture
def books(acme):
    return make_processor(acme, "default", fee="0.05")


@pytest.fixture
def operator():
    return as_person(make_person("olga"))


@pytest.fixture
def member(acme):
    return as_person(make_person(tenant=acme, role="operator"))


def compare(tenant) -> Difference:
    """The one difference of the tenant's only processor."""

    sync_twin(compare_books)(tenant)
    return Difference.objects.get()


async def compare_books(tenant) -> None:
    [account] = await comparison.accounts_of(tenant.pk)
    await comparison.reconcile(account, MORNING)


# -- Differences -----------------------------------------------------------------------------------------------


def test_differences_are_listed_with_both_sides(operator, acme, books):
    book_both(acme, books, amount=2500)
    one = compare(acme)

    seen = text(operator.get(listing(Difference)))
    own = text(operator.get(page(one)))

    assert "19.90 BRL" in seen
    assert "25.00 BRL" in seen
    assert "amount</span>" in seen
    assert "25.00 BRL" in own


def test_a_difference_without_a_payment_of_ours_has_its_page(operator, acme, books):
    book_there(books)
    one = compare(acme)

    assert "not one of our payments" in text(operator.get(page(one)))


def test_resolved_ones_are_shown_on_demand(operator, acme, books):
    book_there(books)
    one = compare(acme)
    Difference.objects.update(resolution="gone")

    assert one.key[:8] not in text(operator.get(listing(Difference)))
    assert one.key[:8] in text(operator.get(listing(Difference), {"resolution": "all"}))


def test_a_booking_missing_here_is_booked_with_a_reason(operator, acme, books):
    book_there(books)
    one = compare(acme)

    answer = confirm(operator, choose(operator, "difference_book", one))

    assert "Book as external: done." in said(answer)
    assert Payment.objects.get().status == SUCCEEDED
    assert AuditEntry.objects.get().action == "difference.book"


def test_a_booking_that_its_processor_no_longer_shows_does_not_stop_the_others(operator, acme, books):
    for _ in range(2):
        book_there(books)
    sync_twin(compare_books)(acme)
    gone, other = Difference.objects.order_by("id")
    SandboxBooking.objects.filter(correlation_id=gone.correlation_id).delete()

    answer = confirm(operator, choose(operator, "difference_book", gone, other))

    assert f"{gone.key} is not booked" in said(answer)
    assert "Book as external: done." in said(answer)
    assert Payment.objects.get().status == SUCCEEDED


def test_bookings_that_cannot_be_booked_are_skipped(operator, acme, books):
    book_here(acme, books)
    one = compare(acme)

    assert "Nothing was changed" in said(choose(operator, "difference_book", one))


def test_a_recheck_shows_the_remaining_differences(operator, acme, books):
    payment = book_here(acme, books)
    one = compare(acme)

    assert "1 still differ" in said(confirm(operator, choose(operator, "difference_look_again", one)))
    book_there(books, correlation_id=payment.correlation_id)
    assert "Re-check: done." in said(confirm(operator, choose(operator, "difference_look_again", one)))
    assert Difference.objects.get().resolution == "gone"


def test_a_difference_is_closed_with_the_reason_as_its_note(operator, acme, books):
    book_there(books)

    confirm(operator, choose(operator, "difference_close", compare(acme)), reason=WHY)

    one = Difference.objects.get()
    assert (one.resolution, one.note, one.resolved_by) == ("closed", WHY, "olga")


def test_members_see_the_differences_of_their_tenants_only(member, acme, books):
    other = make_tenant("other")
    theirs = Difference.objects.create(
        tenant=other,
        processor=make_processor(other),
        kind="missing_here",
        key="theirs",
        requested_at=NOON,
        their_amount=5,
    )

    assert "theirs" not in text(member.get(listing(Difference)))
    assert "Nothing was changed" in said(choose(member, "difference_close", theirs))
    assert member.get(page(theirs)).status_code == 302


def test_comparisons_are_listed(operator, acme, books):
    book_both(acme, books, amount=7)
    compare(acme)

    seen = text(operator.get(listing(Reconciliation)))

    assert "both ways" in seen
    assert "compared</span>" in seen
    assert operator.get(page(Reconciliation.objects.get())).status_code == 200


# -- Routing tried out -------------------------------------------------------------------------------------------


@pytest.fixture
def rules(acme, books):
    dear = make_processor(acme, "fallback", fee="0.15")
    sent(acme, books, 3)
    return books, dear


def dry_run_page(tenant) -> str:
    return reverse("admin:payments_processor_dry_run", query={"tenant": tenant.slug})


def fill(cheap, dear, **changed) -> dict[str, str]:
    """The form as it stands, with changes."""
    fields = {
        f"fee-{cheap.pk}": "0.05",
        f"enabled-{cheap.pk}": "on",
        f"fee-{dear.pk}": "0.15",
        f"enabled-{dear.pk}": "on",
    }
    return {**fields, "last": "100", "dry_run": "1"} | changed


def hidden(answer) -> dict[str, str]:
    found = re.findall(r'<input type="hidden" name="(edits|rules)" value="([^"]*)"', text(answer))
    return {name: html.unescape(value) for name, value in found}


def test_the_processors_of_a_tenant_lead_to_the_dry_run(operator, acme, rules):
    assert "/admin/payments/processor/simulate/?tenant=acme" in text(
        operator.get(listing(Processor), {"tenant": "acme"})
    )


def test_edited_rules_are_compared_with_todays(operator, acme, rules):
    cheap, dear = rules

    answer = operator.post(dry_run_page(acme), fill(cheap, dear, **{f"fee-{dear.pk}": "0.01"}))

    assert "3 payments, 3 would go elsewhere" in text(answer)
    assert json.loads(hidden(answer)["edits"]) == {"fallback.fee": "0.01"}
    assert str(Processor.objects.get(pk=dear.pk).fee) == "0.150000"


def test_nothing_to_activate_is_offered_where_nothing_is_edited(operator, acme, rules):
    answer = operator.post(dry_run_page(acme), fill(*rules))

    assert "0 would go elsewhere" in text(answer)
    assert "Activate" not in text(answer)


def test_the_rules_of_a_dry_run_are_activated_with_a_reason(operator, acme, rules):
    cheap, dear = rules
    asked = operator.post(dry_run_page(acme), fill(cheap, dear, **{f"fee-{dear.pk}": "0.01"}))

    without = operator.post(dry_run_page(acme), {**hidden(asked), "reason": " ", "activate": "1"})
    done = operator.post(dry_run_page(acme), {**hidden(asked), "reason": WHY, "activate": "1"})

    assert "This field is required" in text(without)
    assert "In force now: fallback." in said(done)
    assert str(Processor.objects.get(pk=dear.pk).fee) == "0.010000"
    assert AuditEntry.objects.get().reason == WHY


def test_rules_that_were_changed_meanwhile_are_not_overwritten(operator, acme, rules):
    cheap, dear = rules
    asked = operator.post(dry_run_page(acme), fill(cheap, dear, **{f"fee-{dear.pk}": "0.01"}))
    Processor.objects.filter(pk=cheap.pk).update(enabled=False)

    answer = operator.post(dry_run_page(acme), {**hidden(asked), "reason": WHY, "activate": "1"})

    assert "run it again" in said(answer) + text(answer)
    assert str(Processor.objects.get(pk=dear.pk).fee) == "0.150000"


@pytest.mark.parametrize("edits", ["[]", '{"default.fee": 1}', "no json"])
def test_edits_that_were_tampered_with_are_refused(operator, acme, rules, edits):
    asked = operator.post(dry_run_page(acme), fill(*rules, **{f"fee-{rules[1].pk}": "0.01"}))

    answer = operator.post(dry_run_page(acme), {**hidden(asked), "edits": edits, "reason": WHY, "activate": "1"})

    assert answer.status_code == 200
    assert not AuditEntry.objects.exists()


def test_operators_may_do_a_dry_run_and_only_owners_activate_it(member, acme, rules):
    cheap, dear = rules
    edits = {f"fee-{dear.pk}": "0.01"}

    asked = member.post(dry_run_page(acme), fill(cheap, dear, **edits))
    owner = as_person(make_person("owner", tenant=acme, role="owner"))
    offered = owner.post(dry_run_page(acme), fill(cheap, dear, **edits))
    refused = member.post(dry_run_page(acme), {**hidden(offered), "reason": WHY, "activate": "1"})

    assert "3 would go elsewhere" in text(asked)
    assert "Activate" not in text(asked)
    assert "Only an owner" in said(refused) + text(refused)
    assert str(Processor.objects.get(pk=dear.pk).fee) == "0.150000"
    assert "In force now" in said(owner.post(dry_run_page(acme), {**hidden(offered), "reason": WHY, "activate": "1"}))


def test_the_routing_of_another_tenant_is_not_shown(member, rules):
    make_tenant("other")

    assert member.get(reverse("admin:payments_processor_dry_run", query={"tenant": "other"})).status_code == 404
    assert member.get(reverse("admin:payments_processor_dry_run")).status_code == 404


# -- The audit trail's proof ----------------------------------------------------------------------------------------


PROOF = "admin:registry_auditentry_verify"


def test_the_audit_page_shows_whether_the_chain_is_valid(operator, acme):
    write(acme, "a", "b")
    write(None, "c")

    seen = text(operator.get(reverse(PROOF)))

    assert seen.count("holds</span>") == 2
    assert "the service itself" in seen
    assert reverse(PROOF) in text(operator.get(listing(AuditEntry)))


def test_the_audit_page_shows_where_the_chain_breaks(operator, acme):
    ids = write(acme, "a", "b")
    tamper("UPDATE registry_auditentry SET reason = '' WHERE id = %s", ids[1])

    seen = text(operator.get(reverse(PROOF, query={"tenant": "acme"})))

    assert "broken</span>" in seen
    assert f"position 2, entry {ids[1]}" in seen


def test_members_see_their_own_chains_only(member, acme):
    write(acme, "a")
    write(make_tenant("other"), "b")

    seen = text(member.get(reverse(PROOF)))

    assert "acme" in seen
    assert "other" not in seen
    assert "the service itself" not in seen
    assert "other" not in text(member.get(reverse(PROOF, query={"tenant": "other"})))


def test_the_new_pages_work_under_the_strict_policy(operator, acme, rules):
    pages = [operator.get(dry_run_page(acme)), operator.get(reverse(PROOF))]
    pages.append(operator.post(dry_run_page(acme), fill(*rules, **{f"fee-{rules[1].pk}": "0.01"})))

    for answer in pages:
        assert not re.search(r"<style|\sstyle=|\son[a-z]+=\"|<script(?![^>]*\ssrc=)", text(answer))
        assert "unsafe" not in answer.headers["Content-Security-Policy"]
