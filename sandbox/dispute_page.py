"""The seller's page of a dispute, in place of the one in Stripe's dashboard: submit evidence that wins, or accept the dispute."""

import re
from html import escape
from typing import TYPE_CHECKING

from sandbox import disputes
from sandbox.errors import StripeError
from sandbox.html import form, money, page
from sandbox.wire import Answer, Request

if TYPE_CHECKING:
    from sandbox.app import Sandbox

BUTTONS = (
    '<button name="answer" value="win"><b>Submit winning evidence</b>The dispute is won: the money comes back.</button>'
    '<button name="answer" value="lose"><b>Accept the dispute</b>The dispute is lost: the money is gone.</button>'
)


async def answer(sandbox: "Sandbox", request: Request) -> Answer | None:
    """The page, or None for another path."""
    if not (match := re.fullmatch(r"/sandbox/dispute/(\w+)", request.path)) or request.method not in ("GET", "POST"):
        return None
    try:
        dispute = sandbox.state.find("dispute", match[1])
        if request.method == "POST":
            disputes.close_dispute(sandbox.state, dispute, won=request.values.get("answer") == "win")
            await sandbox.finish()
    except StripeError as error:
        return page("Dispute not found", f"<p>{escape(str(error))}</p>", status=error.status)
    state = (
        f"<p>{money(dispute)}, {escape(dispute['reason'])}: <b>{escape(dispute['status'].replace('_', ' '))}</b>.</p>"
    )
    is_open = dispute["status"] in disputes.OPEN
    return page("Dispute", state + (form(request, BUTTONS) if is_open else ""))
