// The live list of a tenant's payments: rows follow all filters, and older ones are added below.

import "./finder.js";
import { announce } from "./page.js";
import { LiveTable } from "./table.js";

const place = document.getElementById("payments");
const filter = JSON.parse(place.dataset.filter);

// -- Rows ---------------------------------------------------------------------------------------------

/** Whether a payment passes the filters that its live message tells of. Its content never changes: a row in the table has passed. */
function fits(payment, created) {
  const at = created && Date.parse(created);
  return !filter.nothing
    && (!filter.status || filter.status === payment.shown)
    && (!filter.processor || filter.processor === payment.processor || payment.processor === null)
    && (!filter.currency || filter.currency === payment.currency)
    && !(payment.amount < filter.least) && !(payment.amount > filter.largest)
    && !(at < Date.parse(filter.since)) && !(at > Date.parse(filter.until));
}

async function ask(ids) {
  const url = new URL(place.dataset.rows, location.href);
  for (const id of ids) url.searchParams.append("id", id);
  const response = await fetch(url);
  if (!response.ok) throw new Error(response.statusText);
  return new DOMParser().parseFromString(await response.text(), "text/html").querySelectorAll("tbody tr");
}

const table = new LiveTable(place, {
  kind: "payment",
  idOf: (payment) => payment.correlationId,
  fits,
  ask,
  enters: Boolean(filter.status || filter.processor || filter.more),
  unsure: Boolean(filter.processor || filter.more),
  fill(row, payment) {
    row.querySelector(".where").textContent = payment.processor || row.querySelector(".where").textContent;
    row.querySelector(".tries").textContent = payment.attempts;
  },
  parts: [".where", ".tries"],
});

// -- Older rows, below those that are there ----------------------------------------------------------------

const more = document.querySelector("nav.more");

more.addEventListener("click", async (event) => {
  const link = event.target.closest("[data-older]");
  if (!link || event.ctrlKey || event.metaKey || event.shiftKey || event.button) return;
  event.preventDefault();
  if (link.getAttribute("aria-busy")) return;
  link.setAttribute("aria-busy", "true");
  const response = await fetch(link.href).catch(() => null);
  if (!response?.ok) return location.assign(link.href);
  const page = new DOMParser().parseFromString(await response.text(), "text/html");
  const rows = [...page.querySelectorAll("#payments tbody tr")].filter((row) => !table.rowOf(row.dataset.id));
  table.body.append(...rows);
  table.loaded = table.body.rows.length;
  if (rows.length) {
    table.body.parentElement.hidden = false;
    place.querySelector(".empty")?.remove();
    rows[0].querySelector("a").focus({ preventScroll: true });
  }
  const next = page.querySelector("nav.more");
  more.replaceChildren(...[...next.children].filter((part) => !part.matches("a:not([data-older])")));
  if (more.children.length === 1) more.prepend(document.createElement("span"));
  announce(rows.length ? `${rows.length} older payments` : "No older payment was found");
});
