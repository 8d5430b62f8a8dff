// Payment page: shows the new state of a live message at once, then fetches the fragment with attempts and timeline.

import { Fragment } from "./fragment.js";
import { Live, longPoll } from "./live.js";
import { showLive } from "./page.js";

const place = document.getElementById("payment");
const fragment = new Fragment(place, () => `${place.querySelector(".amount").textContent} – ${fragment.word}`);

// The payer's action is not part of the fragment: a partly completed form must survive updates, and may need Stripe's script.
function showAction({ status }) {
  const action = document.getElementById("action");
  if (status === "requires_action" && (!action || action.hidden)) location.reload();
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
  fragment.showStatus(payment.status);
  fragment.fetch();
}

returned();

new Live({
  socket: place.dataset.socket,
  after: fragment.shown,
  poll: longPoll(place.dataset.events, receive),
  onMessage: receive,
  onState: showLive,
});
