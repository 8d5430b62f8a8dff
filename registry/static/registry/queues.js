// Queue console: refreshes every two seconds, with charts of the last hour.

import { announce, showLive } from "./page.js";

const REFRESH_EVERY = 2000; // ms between refreshes while the page is visible
const SPAN = 3600; // seconds shown in the charts

// -- Refresh -------------------------------------------------------------------------------------------

const moving = document.getElementById("moving");
const offline = document.getElementById("offline");
let seenAt = new Date();

function refresh() {
  if (!document.hidden) moving.dispatchEvent(new Event("refresh"));
}

function connectionLost() {
  showLive("reconnecting");
  if (!offline.hidden) return;
  offline.querySelector("[data-since]").textContent = `${seenAt.toISOString().slice(11, 19)} UTC`;
  offline.hidden = false;
}

function connected() {
  if (!offline.hidden) announce("Live again");
  offline.hidden = true;
  seenAt = new Date();
  showLive("live");
}

if (moving) {
  moving.addEventListener("htmx:before:response", (event) => {
    if (event.detail.ctx.response.status === 200) return;
    event.preventDefault(); // do not insert an error page
    connectionLost();
  });
  moving.addEventListener("htmx:error", connectionLost);
  moving.addEventListener("htmx:after:swap", () => { connected(); draw(); });
  setInterval(refresh, REFRESH_EVERY);
  document.addEventListener("visibilitychange", refresh);
  showLive("live");
}

// -- Charts ---------------------------------------------------------------------------------------------

let charts = [];

function colour(name) {
  const probe = document.body.appendChild(document.createElement("span"));
  probe.className = name.startsWith("--") ? "" : name;
  probe.style.color = `var(${name.startsWith("--") ? name : "--state"})`;
  const found = getComputedStyle(probe).color;
  probe.remove();
  return found;
}

function seconds(value) {
  if (value === 0) return "0";
  if (value < 1) return `${Math.round(value * 1000)} ms`;
  return value < 120 ? `${Number(value.toPrecision(3))} s` : `${Math.round(value / 60)} min`;
}

function count(value) {
  return value >= 1000 ? `${Number((value / 1000).toPrecision(3))} k` : String(Number(value.toPrecision(3)));
}

function options(place, lines, least, words) {
  const axis = { stroke: colour("--muted"), font: `12px ${getComputedStyle(document.body).fontFamily}`, grid: { stroke: colour("--line"), width: 1 }, ticks: { show: false } };
  return {
    width: place.clientWidth,
    height: place.clientHeight,
    padding: [8, 8, 0, 0],
    cursor: { show: false },
    legend: { show: false },
    scales: {
      x: { time: true, range: () => { const now = Date.now() / 1000; return [now - SPAN, now]; } },
      y: { range: (_, __, top) => [0, Math.max(least, (top || 0) * 1.15)] },
    },
    axes: [
      { ...axis, grid: { show: false }, space: 56, size: 28, gap: 4, values: (_, ticks) => ticks.map((at) => new Date(at * 1000).toTimeString().slice(0, 5)) },
      { ...axis, size: 56, gap: 6, space: 28, values: (_, ticks) => ticks.map(words) },
    ],
    series: [{}, ...lines.map(([name, dashed]) => ({ stroke: colour(name), width: 1.75, dash: dashed ? [4, 3] : undefined, points: { show: lonely, size: 6, fill: colour(name) }, spanGaps: true }))],
  };
}

function lonely(chart, line) { // a single value is drawn as a point
  return chart.data[line].filter((value) => value !== null).length === 1;
}

function draw(anew = false) {
  const source = document.getElementById("series");
  if (!source) return;
  const series = JSON.parse(source.dataset.series);
  const figures = [[series.at, series.in, series.out], [series.at, series.lag, series.worst]];
  if (charts.length && !anew) {
    charts.forEach((chart, n) => chart.setData(figures[n]));
    return;
  }
  charts.forEach((chart) => chart.destroy());
  const [rate, lag] = ["chart-rate", "chart-lag"].map((id) => document.getElementById(id));
  charts = [
    new uPlot(options(rate, [["blue", true], ["green", false]], 1, count), figures[0], rate),
    new uPlot(options(lag, [["violet", false], ["amber", true]], 0.01, seconds), figures[1], lag),
  ];
}

new ResizeObserver(() => {
  for (const chart of charts) {
    const place = chart.root.parentElement;
    if (place.clientWidth !== chart.width) chart.setSize({ width: place.clientWidth, height: place.clientHeight });
  }
}).observe(document.getElementById("main"));
document.addEventListener("themechange", () => draw(true));
draw();

// -- Dead letters: all on the page ------------------------------------------------------------------------

document.addEventListener("change", (event) => {
  const { all } = event.target.dataset;
  if (all) document.querySelectorAll(`input[type=checkbox][name="${all}"]`).forEach((box) => { box.checked = event.target.checked; });
});
