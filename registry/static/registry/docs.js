// The API reference: filter by text, open all, and open the operation that the address names. Without it everything can be read.

import { announce } from "./page.js";

const find = document.querySelector("[data-find]");
const found = document.querySelector("[data-found]");
const all = document.querySelector("[data-open-all]");
const groups = [...document.querySelectorAll("[data-group]")];
const operations = [...document.querySelectorAll("[data-words]")];

function filter() {
  const words = find.value.toLowerCase().split(/\s+/).filter(Boolean);
  let count = 0;
  for (const operation of operations) {
    operation.hidden = !words.every((word) => operation.dataset.words.includes(word));
    count += !operation.hidden;
  }
  for (const group of groups) group.hidden = !group.querySelector("[data-words]:not([hidden])");
  found.textContent = words.length ? `${count} of ${operations.length} operations` : "";
  announce(found.textContent);
}

function openAll() {
  const open = all.getAttribute("aria-pressed") !== "true";
  all.setAttribute("aria-pressed", String(open));
  all.textContent = open ? "Close all" : "Open all";
  for (const operation of operations) operation.firstElementChild.open = open;
}

// Browsers open a closed element that the address leads into; older ones do not.
function openNamed() {
  const operation = document.getElementById(location.hash.slice(1))?.closest("[data-words]");
  if (!operation) return;
  if (operation.hidden) { find.value = ""; filter(); }
  operation.firstElementChild.open = true;
  operation.scrollIntoView({ block: "start" });
}

find.addEventListener("input", filter);
find.addEventListener("keydown", (event) => { if (event.key === "Escape") { find.value = ""; filter(); } });
all.addEventListener("click", openAll);
addEventListener("hashchange", openNamed);
openNamed();
if (find.value) filter(); // the browser fills it in when one comes back
