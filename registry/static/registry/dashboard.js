// Dashboard of a tenant: figures and processors refresh every two seconds, payments update live; rows never move under the pointer.

import { Live } from "./live.js";
import { ago, announce, showLive } from "./page.js";

const REFRESH_EVERY = 2000; // ms between refreshes of the figures while the page is visible
const POLL_EVERY = 3000; // ms between refreshes of the rows where websockets are blocked
const DRAW_EVERY = 100; // ms: changes within it are drawn together
const MOST_ROWS = 50; // most rows in the table, and most new payments kept for it
const AWAY_AFTER = 3000; // ms without a connection until the page shows it

const table = document.getElementById("payments");
const newer = document.getElementById("newer");
const filter = JSON.parse(table.dataset.filter);
const first = table.dataset.first === "yes";

// -- Rows ---------------------------------------------------------------------------------------------

const number = {}; // formats by currency

function money(amount, currency) {
  number[currency] ??= new Intl.NumberFormat("en", { style: "currency", currency });
  return number[currency].format(amount);
}

function short(id) {
  return `${id.slice(0, 8)}…${id.slice(-4)}`;
}

function blankRow(payment) {
  const row = document.getElementById("row").content.firstElementChild.cloneNode(true);
  const id = payment.correlationId;
  const link = row.querySelector("a");
  row.dataset.id = id;
  row.dataset.created = payment.createdAt;
  link.href = `/payments/${id}/live?tenant=${encodeURIComponent(table.dataset.tenant)}`;
  link.title = id;
  link.textContent = short(id);
  row.querySelector("[data-copy]").dataset.copy = id;
  row.querySelector("td.num").textContent = money(payment.amount, payment.currency);
  return row;
}

function fill(row, payment) {
  row.dataset.sequence = payment.sequence;
  const state = row.querySelector(".state");
  if (state.firstElementChild?.dataset.status !== payment.status) {
    const pill = document.querySelector(`template[data-pill="${CSS.escape(payment.status)}"]`);
    if (pill) state.replaceChildren(pill.content.cloneNode(true));
  }
  row.querySelector(".where").textContent = payment.processor || "–";
  row.querySelector(".tries").textContent = payment.attempts;
  const time = row.querySelector("time");
  time.dateTime = payment.updatedAt;
  time.title = payment.updatedAt.replace("T", " ").replace("Z", " UTC");
  time.textContent = ago(Date.parse(payment.updatedAt));
  return row;
}

const rowOf = (id) => table.querySelector(`tr[data-id="${CSS.escape(id)}"]`);

// -- Live messages ---------------------------------------------------------------------------------------

const waiting = new Map(); // id → payment, new, not in the table yet, oldest first
const changed = new Map(); // id → payment to be drawn
let unseen = 0; // number of new payments, including those dropped from `waiting`
let drawing = null;

function receive({ payment }) {
  const id = payment.correlationId;
  if (payment.sequence === 1 && !rowOf(id) && fits(payment)) {
    unseen += 1;
    waiting.set(id, { ...payment, createdAt: payment.updatedAt }); // its first change is its acceptance
    countOne();
    if (waiting.size > MOST_ROWS) waiting.delete(waiting.keys().next().value);
  } else if ((waiting.get(id)?.sequence ?? Infinity) < payment.sequence) {
    waiting.set(id, { ...payment, createdAt: waiting.get(id).createdAt });
  } else if (!((changed.get(id)?.sequence ?? 0) >= payment.sequence)) {
    changed.set(id, payment);
  }
  drawing ??= setTimeout(draw, DRAW_EVERY);
}

// A new payment has no processor yet and was accepted now: it can match a filter by state, but none by processor or end time.
function fits(payment) {
  return first && !filter.processor && !filter.to && !filter.id && (!filter.status || filter.status === payment.status);
}

function draw() {
  drawing = null;
  for (const [id, payment] of changed) {
    const row = rowOf(id);
    if (row && Number(row.dataset.sequence) < payment.sequence) fill(row, payment);
  }
  changed.clear();
  if (unseen && !readerIsThere()) showNew();
  showNewCount();
}

// Rows do not move while the pointer or the focus is on them, or while the page is scrolled into them.
function readerIsThere() {
  const body = table.querySelector("tbody");
  return body.matches(":hover") || body.contains(document.activeElement) || body.getBoundingClientRect().top < 0;
}

function showNew() {
  const body = table.querySelector("tbody");
  for (const payment of waiting.values()) {
    const row = fill(blankRow(payment), payment);
    prepend(body, row);
  }
  waiting.clear();
  unseen = 0;
}

function prepend(body, row) {
  row.classList.add("fresh");
  row.addEventListener("animationend", () => row.classList.remove("fresh"), { once: true });
  body.prepend(row);
  body.parentElement.hidden = false;
  table.querySelector(".empty")?.remove();
  if (body.rows.length <= MOST_ROWS) return;
  body.lastElementChild.remove();
  const older = document.querySelector("[data-older]"); // the link continues where the table now ends
  if (!older) return;
  const url = new URL(older.href);
  url.searchParams.delete("cursor");
  url.searchParams.set("to", body.lastElementChild.dataset.created.replace("Z", ""));
  older.href = url;
}

const total = document.querySelector("[data-total]");

function countOne() {
  total.dataset.total = Number(total.dataset.total) + 1;
  total.textContent = Number(total.dataset.total).toLocaleString("en");
}

function showNewCount() {
  const button = newer.querySelector("button");
  newer.hidden = unseen === 0;
  if (unseen) button.textContent = `${unseen.toLocaleString("en")} new`;
}

newer.querySelector("button").addEventListener("click", () => {
  showNew();
  showNewCount();
  const top = document.getElementById("payments-title");
  top.scrollIntoView({ block: "start" });
  table.querySelector("tbody a")?.focus({ preventScroll: true });
  document.activeElement?.blur(); // the tab order continues at the first row, and new rows may be added again
});
table.addEventListener("pointerleave", () => { if (unseen) drawing ??= setTimeout(draw, DRAW_EVERY); });
table.addEventListener("focusout", () => { if (unseen) drawing ??= setTimeout(draw, DRAW_EVERY); });
addEventListener("scroll", () => { if (unseen) drawing ??= setTimeout(draw, DRAW_EVERY); }, { passive: true });

// -- Connection ----------------------------------------------------------------------------------------------

const offline = document.getElementById("offline");
let away = null;
let drawnAt = new Date();

function showConnection(state) {
  showLive(state);
  clearTimeout(away);
  if (state === "live" || state === "polling") {
    if (!offline.hidden) announce("Live again");
    offline.hidden = true;
  } else if (offline.hidden) {
    const since = drawnAt.toISOString().slice(11, 19);
    away = setTimeout(() => { offline.querySelector("[data-since]").textContent = `${since} UTC`; offline.hidden = false; }, AWAY_AFTER);
  }
}

// Polling, where websockets are blocked: fetches the page again and takes over changed rows.
async function readRows(after, signal) {
  await new Promise((resolve) => { setTimeout(resolve, POLL_EVERY); });
  if (signal.aborted || document.hidden) return after;
  const response = await fetch(location.href, { signal });
  if (!response.ok) throw Object.assign(new Error(response.statusText), { status: response.status });
  const fresh = new DOMParser().parseFromString(await response.text(), "text/html");
  for (const row of [...fresh.querySelectorAll("#payments tbody tr")].reverse()) takeRow(row);
  return after;
}

function takeRow(row) {
  const mine = rowOf(row.dataset.id);
  if (!mine) {
    if (!first || readerIsThere()) return;
    prepend(table.querySelector("tbody"), row);
    countOne();
  } else if (Number(mine.dataset.sequence) < Number(row.dataset.sequence)) {
    for (const part of [".state", ".where", ".tries", ".at"]) mine.querySelector(part).replaceWith(row.querySelector(part));
    mine.dataset.sequence = row.dataset.sequence;
  }
}

new Live({
  socket: table.dataset.socket,
  after: Number(table.dataset.position),
  poll: readRows,
  onMessage: (message) => { drawnAt = new Date(); receive(message); },
  onState: showConnection,
});

// -- Figures ---------------------------------------------------------------------------------------------------

const overview = document.getElementById("overview");
let breakers = new Map();

setInterval(() => { if (!document.hidden) overview.dispatchEvent(new Event("refresh")); }, REFRESH_EVERY);
document.addEventListener("visibilitychange", () => { if (!document.hidden) overview.dispatchEvent(new Event("refresh")); });

function sayBreakers() {
  const now = new Map([...overview.querySelectorAll("[data-breaker]")].map((card) => [card.id, card]));
  for (const [id, card] of now) {
    const before = breakers.get(id);
    if (before && before !== card.dataset.breaker) {
      announce(`${card.querySelector("h3").textContent}: ${card.querySelector("header .pill").lastChild.textContent}`);
    }
  }
  breakers = new Map([...now].map(([id, card]) => [id, card.dataset.breaker]));
}

// -- Charts ------------------------------------------------------------------------------------------------------

const SPAN = 300; // seconds shown in the charts
const response = { at: [], by: new Map() }; // moving averages of the processors, as received
let charts = [];

function figures() {
  return JSON.parse(document.getElementById("series").dataset.series);
}

function remember(series) {
  response.at.push(Date.now() / 1000);
  for (const name of Object.keys(series.response)) {
    if (!response.by.has(name)) response.by.set(name, response.at.slice(1).map(() => null));
  }
  for (const [name, line] of response.by) line.push(series.response[name] || null);
  while (response.at[0] < Date.now() / 1000 - SPAN) {
    response.at.shift();
    for (const line of response.by.values()) line.shift();
  }
}

function colours(keys) {
  const probe = document.body.appendChild(document.createElement("span"));
  const found = (name) => { probe.className = name; probe.style.color = "var(--state)"; return getComputedStyle(probe).color; };
  const plain = (name) => { probe.className = ""; probe.style.color = `var(${name})`; return getComputedStyle(probe).color; };
  const result = { lines: keys.map(found), muted: plain("--muted"), grid: plain("--line"), font: `12px ${getComputedStyle(document.body).fontFamily}` };
  probe.remove();
  return result;
}

function smooth(values) { // moving average over five seconds: single seconds with few payments are noise
  return values.map((_, n) => {
    const part = values.slice(Math.max(0, n - 4), n + 1);
    return part.reduce((sum, value) => sum + value, 0) / part.length;
  });
}

function options(place, names, colourNames, dashed) {
  const { lines, muted, grid, font } = colours(colourNames);
  const axis = { stroke: muted, font, grid: { stroke: grid, width: 1 }, ticks: { show: false } };
  return {
    width: place.clientWidth,
    height: place.clientHeight,
    padding: [8, 8, 0, 0],
    cursor: { show: false },
    legend: { show: false },
    scales: {
      x: { time: true, range: () => { const now = Date.now() / 1000; return [now - SPAN, now]; } },
      y: { range: (_, __, top) => [0, Math.max(1, (top || 0) * 1.15)] },
    },
    axes: [
      { ...axis, grid: { show: false }, space: 56, size: 28, gap: 4, values: (_, ticks) => ticks.map((at) => new Date(at * 1000).toTimeString().slice(0, 5)) },
      { ...axis, size: 44, gap: 6, space: 28 },
    ],
    series: [{}, ...names.map((label, n) => ({
      label, stroke: lines[n], width: 1.75, dash: dashed.includes(n) ? [4, 3] : undefined, points: { show: false }, spanGaps: true,
    }))],
  };
}

function data(series) {
  return [
    [series.at, smooth(series.accepted), smooth(series.settled)],
    [response.at, ...response.by.values()],
  ];
}

function drawCharts(anew = false) {
  const series = figures();
  if (!anew) remember(series);
  const [rate, time] = data(series);
  if (anew || charts.length !== 2 || charts[1].series.length !== time.length) {
    charts.forEach((chart) => chart.destroy());
    const [ratePlace, timePlace] = ["chart-rate", "chart-response"].map((id) => document.getElementById(id));
    const keys = [...document.querySelectorAll("#chart-response")].flatMap((place) =>
      [...place.parentElement.querySelectorAll(".key span")].map((key) => key.className));
    for (const place of [ratePlace, timePlace]) place.replaceChildren();
    charts = [
      new uPlot(options(ratePlace, ["accepted", "settled"], ["blue", "green"], [0]), rate, ratePlace),
      new uPlot(options(timePlace, [...response.by.keys()], keys, []), time, timePlace),
    ];
    return;
  }
  charts[0].setData(rate);
  charts[1].setData(time);
}

new ResizeObserver(() => {
  for (const chart of charts) {
    const place = chart.root.parentElement;
    if (place.clientWidth !== chart.width) chart.setSize({ width: place.clientWidth, height: place.clientHeight });
  }
}).observe(overview);
document.addEventListener("themechange", () => drawCharts(true));
overview.addEventListener("htmx:after:swap", () => { drawCharts(); sayBreakers(); });
drawCharts();
sayBreakers();
