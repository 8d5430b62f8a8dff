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

// -- Live indicator ---------------------------------------------------------------------------------------

const WORDS = { live: "live", connecting: "connecting", reconnecting: "reconnecting", polling: "polling", ended: "not live" };

export function showLive(state) {
  for (const mark of document.querySelectorAll("[data-live]")) {
    mark.dataset.live = state;
    mark.querySelector("[data-live-word]").textContent = WORDS[state];
  }
}

showTheme();
showTimes();
showLocalTimes();
setInterval(showTimes, 1000);
