// Payment page: shows the new state of a live message at once, then fetches the fragment with attempts and timeline.

import { Fragment } from "./fragment.js";
import { Live, longPoll } from "./live.js";
import { showLive } from "./page.js";

const POLL_EVERY = 3000; // ms

const place = document.getElementById("payment");
const fragment = new Fragment(place, () => `${place.querySelector(".amount").textContent} – ${fragment.word}`);

// The payer's action is not part of the fragment: a partly completed form must survive updates, and may need Stripe's script.
function showAction({ status }) {
  const action = document.getElementById("action");
  if (status === "requires_action" && place.dataset.pays === "yes" && (!action || action.hidden)) location.reload();
  else if (status !== "requires_action" && action) action.hidden = true;
}

// Return from the processor's page: notify the server, and remove the processor's parameters from history and bookmarks.
async function returned() {
  const url = new URL(location.href);
  if (!url.searchParams.has("redirect_status")) return;
  for (const name of ["redirect_status", "payment_intent", "payment_intent_client_secret"]) url.searchParams.delete(name);
  history.replaceState(null, "", url);
  const action = document.getElementById("action");
  if (action) await fetch(action.dataset.look, { method: "POST", headers: { "X-Requested-With": "fetch" } });
}

function receive({ payment }) {
  if (payment.sequence <= fragment.shown) return;
  fragment.shown = payment.sequence;
  showAction(payment);
  // Refunds and disputes leave the status as it is: the fragment has what is shown for it.
  if (payment.status !== place.dataset.status) fragment.showStatus(payment.status);
  place.dataset.status = payment.status;
  fragment.fetch();
}

// Look-ups, processors and discrepancies change without an event of the payment.
function refreshLater() {
  setTimeout(async () => {
    if (!document.hidden) await fragment.fetch();
    refreshLater();
  }, place.querySelector("[data-refresh]").dataset.refresh * 1000);
}

// Where websockets are blocked: members have no long poll, which wants a key or a link's token.
async function pollPage(after, signal) {
  await new Promise((resolve) => { setTimeout(resolve, POLL_EVERY); });
  if (!signal.aborted && !document.hidden) await fragment.fetch();
  return after;
}

returned();
refreshLater();

new Live({
  socket: place.dataset.socket,
  after: fragment.shown,
  poll: place.dataset.events ? longPoll(place.dataset.events, receive) : pollPage,
  onMessage: receive,
  onState: showLive,
});
