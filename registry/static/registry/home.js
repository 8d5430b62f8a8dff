// Home of a tenant: attention, figures and processors refresh every two seconds.

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

let charts = [];

function data(series) {
  return [
    [series.at, series.succeeded, series.failed],
    [series.at, ...series.response.map(([, values]) => values)],
  ];
}

function drawCharts(anew = false) {
  const series = figures();
  const [payments, response] = data(series);
  if (anew || charts.length !== 2 || charts[1].series.length !== response.length) {
    charts.forEach((chart) => chart.destroy());
    const span = Number(document.getElementById("series").dataset.span);
    const [paymentsPlace, responsePlace] = ["chart-payments", "chart-response"].map((id) => document.getElementById(id));
    charts = [
      lineChart(paymentsPlace, payments, { span, lines: [["green", false], ["red", true]] }),
      lineChart(responsePlace, response, { span, lines: series.response.map(([colour]) => [colour, false]) }),
    ];
    return;
  }
  charts[0].setData(payments);
  charts[1].setData(response);
}

followSize(overview, () => charts);
document.addEventListener("themechange", () => drawCharts(true));
overview.addEventListener("htmx:after:swap", () => { drawCharts(); sayBreakers(); });
drawCharts();
sayBreakers();
