// Parts of every page: theme switch, copy buttons, relative and local times, announcements, the live indicator.

const root = document.documentElement;

// -- Theme ------------------------------------------------------------------------------------------

const dark = matchMedia("(prefers-color-scheme: dark)");

function isDark() {
  return root.dataset.theme ? root.dataset.theme === "dark" : dark.matches;
}

function showTheme() {
  for (const button of document.querySelectorAll("[data-theme-switch]")) {
    button.setAttribute("aria-pressed", String(isDark()));
  }
}

function switchTheme() {
  root.dataset.theme = isDark() ? "light" : "dark";
  try { localStorage.setItem("theme", root.dataset.theme); } catch { /* storage is forbidden: it applies to this page only */ }
  showTheme();
  document.dispatchEvent(new Event("themechange"));
}

dark.addEventListener("change", () => { showTheme(); document.dispatchEvent(new Event("themechange")); });

// -- Announcements ------------------------------------------------------------------------------------

export function announce(text) {
  const region = document.getElementById("announce");
  if (region && region.textContent !== text) region.textContent = text;
}

// -- Copy -----------------------------------------------------------------------------------------------

async function copy(button) {
  try {
    await navigator.clipboard.writeText(button.dataset.copy);
  } catch { // no secure context: execCommand
    const field = Object.assign(document.createElement("textarea"), { value: button.dataset.copy, className: "unseen" });
    document.body.append(field);
    field.select();
    document.execCommand("copy");
    field.remove();
    button.focus();
  }
  button.classList.add("done");
  announce("Copied");
  setTimeout(() => button.classList.remove("done"), 1200);
}

document.addEventListener("click", (event) => {
  const target = event.target.closest?.("[data-copy], [data-theme-switch]");
  if (target?.dataset.copy) copy(target);
  else if (target) switchTheme();
});

// -- Times ------------------------------------------------------------------------------------------------

// Seconds and words as in the filter `ago` of registry/templatetags/figures.py.
export function ago(moment, now = Date.now()) {
  const seconds = Math.max(0, Math.floor((now - moment) / 1000));
  if (seconds < 2) return "just now";
  if (seconds < 60) return `${seconds} s ago`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ago`;
  if (seconds < 86400) return `${Math.floor(seconds / 3600)} h ago`;
  return `${Math.floor(seconds / 86400)} d ago`;
}

function showTimes() {
  const now = Date.now();
  for (const time of document.querySelectorAll("time[data-ago]")) {
    const text = ago(Date.parse(time.dateTime), now);
    if (time.textContent !== text) time.textContent = text;
  }
}

// Due times by the viewer's own clock; without scripts they are in UTC.
const LOCAL = new Intl.DateTimeFormat("en-GB", { weekday: "short", year: "numeric", month: "2-digit", day: "2-digit", hour: "2-digit", minute: "2-digit", timeZoneName: "short" });

export function showLocalTimes() {
  for (const time of document.querySelectorAll("time[data-local]")) {
    const part = Object.fromEntries(LOCAL.formatToParts(Date.parse(time.dateTime)).map(({ type, value }) => [type, value]));
    time.textContent = `${part.weekday} ${part.year}-${part.month}-${part.day} ${part.hour}:${part.minute} ${part.timeZoneName}`;
  }
}

// -- Parts that follow changes made elsewhere -----------------------------------------------------------------

const FOLLOW_EVERY = 5000; // ms between readings while the page is visible
const RELATIVE = /(<time[^>]* data-ago="">)[^<]*/g; // times in words differ at each reading
const TOKENS = /(name="csrfmiddlewaretoken" value=")[^"]*/g;

const plain = (part) => part.innerHTML.replace(RELATIVE, "$1").replace(TOKENS, "$1");

const inUse = (part) => part.matches(":hover") || part.contains(document.activeElement) || part.querySelector("input:checked");

/** Take over the parts of the page, as it is now at the server, that differ: but none that somebody points at or fills in. */
async function follow(parts, shown) {
  if (document.hidden) return;
  try {
    const response = await fetch(location.href, { headers: { Accept: "text/html" } });
    if (!response.ok || response.redirected) return;
    const fresh = new DOMParser().parseFromString(await response.text(), "text/html");
    for (const part of parts) {
      const now = fresh.querySelector(`[data-follow="${part.dataset.follow}"]`);
      if (!now || inUse(part) || plain(now) === shown.get(part)) continue;
      shown.set(part, plain(now));
      part.replaceChildren(...now.childNodes);
      showLocalTimes();
    }
  } catch { /* offline: what is shown stays, and the next reading follows */ }
}

function followChanges() {
  const parts = [...document.querySelectorAll("[data-follow]")];
  if (parts.length === 0) return;
  const shown = new Map(parts.map((part) => [part, plain(part)]));
  setInterval(() => follow(parts, shown), FOLLOW_EVERY);
}

// -- Live indicator ---------------------------------------------------------------------------------------

const WORDS = { live: "live", connecting: "connecting", reconnecting: "reconnecting", polling: "polling", ended: "not live" };

export function showLive(state) {
  for (const mark of document.querySelectorAll("[data-live]")) {
    mark.dataset.live = state;
    mark.querySelector("[data-live-word]").textContent = WORDS[state];
  }
}

followChanges();
showTheme();
showTimes();
showLocalTimes();
setInterval(showTimes, 1000);
