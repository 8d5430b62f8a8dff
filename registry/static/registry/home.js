// Home of a tenant: figures and processors refresh every two seconds.

import { figures, followSize, lineChart } from "./charts.js";
import { announce } from "./page.js";
import { refreshing } from "./table.js";

const REFRESH_EVERY = 2000; // ms between refreshes of the figures while the page is visible

// -- Figures ---------------------------------------------------------------------------------------------------

const overview = document.getElementById("overview");
let breakers = new Map();

refreshing(overview, REFRESH_EVERY);

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

function smooth(values) { // moving average over five seconds: single seconds with few payments are noise
  return values.map((_, n) => {
    const part = values.slice(Math.max(0, n - 4), n + 1);
    return part.reduce((sum, value) => sum + value, 0) / part.length;
  });
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
      lineChart(ratePlace, rate, { span: SPAN, lines: [["blue", true], ["green", false]] }),
      lineChart(timePlace, time, { span: SPAN, lines: keys.map((key) => [key, false]) }),
    ];
    return;
  }
  charts[0].setData(rate);
  charts[1].setData(time);
}

followSize(overview, () => charts);
document.addEventListener("themechange", () => drawCharts(true));
overview.addEventListener("htmx:after:swap", () => { drawCharts(); sayBreakers(); });
drawCharts();
sayBreakers();
