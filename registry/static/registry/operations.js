// The first page of the admin: asks again for what needs attention while somebody looks at it.

const EVERY = 15_000; // ms
const place = document.querySelector("[data-attention]");
const said = document.querySelector("[data-attention-said]");
let before = names();

function names() {
  return new Set([...place.querySelectorAll(".attention > ul > [data-item]")].map((item) => item.dataset.item));
}

async function refresh() {
  if (document.hidden || place.contains(document.activeElement)) return; // nothing moves under a person's hands
  try {
    const response = await fetch(location.href, { headers: { "HX-Request": "true" } });
    if (!response.ok || response.redirected) return;
    const open = place.querySelector("details")?.open;
    place.innerHTML = await response.text();
    const details = place.querySelector("details");
    if (details && open !== undefined) details.open = open;
    const now = names();
    if (now.size !== before.size || [...now].some((name) => !before.has(name))) {
      said.textContent = now.size ? `${now.size} items need attention.` : "Nothing needs attention.";
    }
    before = now;
  } catch { /* offline: the time at which it was read stays on the page */ }
}

setInterval(refresh, EVERY);
document.addEventListener("visibilitychange", refresh);
