// The payment page: shows a change the moment it is heard of, then reads the piece with the whole story again.

import { Live, longPoll } from "./live.js";
import { announce, showLive } from "./page.js";

const place = document.getElementById("payment");
let shown = Number(place.dataset.sequence);

// The news itself is enough for pill and sentence; attempts and times come with the piece.
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

async function readPiece() {
  if (reading) { again = true; return; }
  reading = true;
  do {
    again = false;
    try {
      const response = await fetch(location.href, { headers: { "HX-Request": "true" } });
      if (response.ok) showPiece(await response.text());
    } catch { /* offline: the news has been shown, the rest follows with the next one */ }
  } while (again);
  reading = false;
}

function showPiece(html) {
  const piece = document.createElement("template");
  piece.innerHTML = html;
  const sequence = Number(piece.content.querySelector("[data-sequence]").dataset.sequence);
  if (sequence < shown) { again = true; return; }
  shown = sequence;
  const before = keys(place);
  for (const node of piece.content.querySelectorAll("[data-key]")) {
    if (!before.has(node.dataset.key)) node.classList.add("fresh");
  }
  const { copy, keep } = place.contains(document.activeElement) ? document.activeElement.dataset : {};
  place.replaceChildren(piece.content);
  if (copy) place.querySelector(`[data-copy="${CSS.escape(copy)}"]`)?.focus();
  if (keep) place.querySelector(`[data-keep="${CSS.escape(keep)}"]`)?.focus();
  const sentence = place.querySelector("[data-sentence-here]").textContent;
  announce(sentence);
  document.title = `${place.querySelector(".amount").textContent} – ${place.querySelector("[data-pill-here] .pill").lastChild.textContent}`;
}

// What the payer has to do is no part of the piece: a form half filled in must outlive news, and may need Stripe's script.
function showAction({ status }) {
  const action = document.getElementById("action");
  if (status === "requires_action" && (!action || action.hidden)) location.reload();
  else if (status !== "requires_action" && action) action.hidden = true;
}

// Back from the processor's page: say so, and keep what it added to the address out of history and bookmarks.
async function cameBack() {
  const url = new URL(location.href);
  if (!url.searchParams.has("redirect_status")) return;
  for (const name of ["redirect_status", "payment_intent", "payment_intent_client_secret"]) url.searchParams.delete(name);
  history.replaceState(null, "", url);
  const action = document.getElementById("action");
  if (action) await fetch(action.dataset.look, { method: "POST", headers: { "X-Requested-With": "fetch" } });
}

function heard({ payment }) {
  if (payment.sequence <= shown) return;
  shown = payment.sequence;
  showAction(payment);
  showAtOnce(payment);
  readPiece();
}

cameBack();

new Live({
  socket: place.dataset.socket,
  after: shown,
  poll: longPoll(place.dataset.events, heard),
  onMessage: heard,
  onState: showLive,
});
