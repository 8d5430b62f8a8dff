// Console pages that refresh as a whole: refreshed every two seconds, with charts of the last hour.

import { figures, followSize, lineChart } from "./charts.js";
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

function seconds(value) {
  if (value === 0) return "0";
  if (value < 1) return `${Math.round(value * 1000)} ms`;
  return value < 120 ? `${Number(value.toPrecision(3))} s` : `${Math.round(value / 60)} min`;
}

function count(value) {
  return value >= 1000 ? `${Number((value / 1000).toPrecision(3))} k` : String(Number(value.toPrecision(3)));
}

function draw(anew = false) {
  if (!document.getElementById("series")) return;
  const series = figures();
  const data = [[series.at, series.in, series.out], [series.at, series.lag, series.worst]];
  if (charts.length && !anew) {
    charts.forEach((chart, n) => chart.setData(data[n]));
    return;
  }
  charts.forEach((chart) => chart.destroy());
  const [rate, lag] = ["chart-rate", "chart-lag"].map((id) => document.getElementById(id));
  charts = [
    lineChart(rate, data[0], { span: SPAN, lines: [["blue", true], ["green", false]], words: count, wide: 56 }),
    lineChart(lag, data[1], { span: SPAN, lines: [["violet", false], ["amber", true]], least: 0.01, words: seconds, wide: 56 }),
  ];
}

followSize(document.getElementById("main"), () => charts);
document.addEventListener("themechange", () => draw(true));
draw();

// -- Dead letters: all on the page ------------------------------------------------------------------------

document.addEventListener("change", (event) => {
  const { all } = event.target.dataset;
  if (all) document.querySelectorAll(`input[type=checkbox][name="${all}"]`).forEach((box) => { box.checked = event.target.checked; });
});
