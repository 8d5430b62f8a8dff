// Payment page: shows the new state of a live message at once, then fetches the fragment with attempts and timeline.

import { Live, longPoll } from "./live.js";
import { announce, showLive } from "./page.js";

const place = document.getElementById("payment");
let shown = Number(place.dataset.sequence);

// The live message has the state for pill and sentence; attempts and times follow with the fragment.
function showAtOnce({ status }) {
  const template = document.querySelector(`template[data-pill="${CSS.escape(status)}"]`);
  if (!template) return;
  place.querySelector("[data-pill-here]").replaceChildren(template.content.cloneNode(true));
  place.querySelector("[data-sentence-here]").textContent = template.dataset.sentence;
}

function keys(parent) {
  return new Set([...parent.querySelectorAll("[data-key]")].map((node) => node.dataset.key));
}

let reading = false;
let again = false;

async function fetchFragment() {
  if (reading) { again = true; return; }
  reading = true;
  do {
    again = false;
    try {
      const response = await fetch(location.href, { headers: { "HX-Request": "true" } });
      if (response.ok) showFragment(await response.text());
    } catch { /* offline: the state is shown, the rest follows with the next message */ }
  } while (again);
  reading = false;
}

function showFragment(html) {
  const fragment = document.createElement("template");
  fragment.innerHTML = html;
  const sequence = Number(fragment.content.querySelector("[data-sequence]").dataset.sequence);
  if (sequence < shown) { again = true; return; }
  shown = sequence;
  const before = keys(place);
  for (const node of fragment.content.querySelectorAll("[data-key]")) {
    if (!before.has(node.dataset.key)) node.classList.add("fresh");
  }
  const { copy, keep } = place.contains(document.activeElement) ? document.activeElement.dataset : {};
  place.replaceChildren(fragment.content);
  if (copy) place.querySelector(`[data-copy="${CSS.escape(copy)}"]`)?.focus();
  if (keep) place.querySelector(`[data-keep="${CSS.escape(keep)}"]`)?.focus();
  const sentence = place.querySelector("[data-sentence-here]").textContent;
  announce(sentence);
  document.title = `${place.querySelector(".amount").textContent} – ${place.querySelector("[data-pill-here] .pill").lastChild.textContent}`;
}

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
  if (payment.sequence <= shown) return;
  shown = payment.sequence;
  showAction(payment);
  showAtOnce(payment);
  fetchFragment();
}

returned();

new Live({
  socket: place.dataset.socket,
  after: shown,
  poll: longPoll(place.dataset.events, receive),
  onMessage: receive,
  onState: showLive,
});
