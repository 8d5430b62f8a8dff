// The live list of a tenant's payments.

import { LiveTable } from "./table.js";

const place = document.getElementById("payments");
const filter = JSON.parse(place.dataset.filter);
const number = {}; // formats by currency

function money(amount, currency) {
  number[currency] ??= new Intl.NumberFormat("en", { style: "currency", currency });
  return number[currency].format(amount);
}

new LiveTable(place, {
  kind: "payment",
  idOf: (payment) => payment.correlationId,
  // A new payment has no processor yet and was accepted now: it can match a filter by state, but none by processor or end time.
  fits: (payment) => !filter.processor && !filter.to && !filter.id && (!filter.status || filter.status === payment.status),
  describe(row, payment) {
    row.querySelector("a").href = `/payments/${payment.correlationId}/live?tenant=${encodeURIComponent(place.dataset.tenant)}`;
    row.querySelector("td.num").textContent = money(payment.amount, payment.currency);
  },
  fill(row, payment) {
    row.querySelector(".where").textContent = payment.processor || "–";
    row.querySelector(".tries").textContent = payment.attempts;
  },
  parts: [".where", ".tries"],
});
