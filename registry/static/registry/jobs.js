// List of a tenant's jobs: figures refresh every two seconds, jobs update live.

import { figures, followSize, lineChart } from "./charts.js";
import { progressText } from "./progress.js";
import { LiveTable, refreshing, showTime } from "./table.js";

const REFRESH_EVERY = 2000; // ms between refreshes of the figures while the page is visible
const HOUR = 3600; // seconds of the chart of jobs per minute
const MINUTES = 300; // seconds of the chart of open jobs, which begins with the page

// -- Rows ---------------------------------------------------------------------------------------------

const place = document.getElementById("jobs");
const filter = JSON.parse(place.dataset.filter);
const at = (entered) => (entered ? Date.parse(`${entered}Z`) : NaN); // the filters' times are UTC

function remark({ status, progress, error }) {
  if (progress && !(status === "failed" && error)) return progressText(progress);
  return error ? error.detail || error.code : "";
}

new LiveTable(place, {
  kind: "job",
  idOf: (job) => job.id,
  fits: (job, created) => (!filter.kind || filter.kind === job.kind) && (!filter.status || filter.status === job.status)
    && !(Date.parse(created) < at(filter.from)) && !(Date.parse(created) > at(filter.to)),
  describe(row, job) {
    row.querySelector("a").href = `/jobs/${job.id}/live?tenant=${encodeURIComponent(place.dataset.tenant)}`;
    row.querySelector(".kind").textContent = job.kind;
    showTime(row.querySelector(".created time"), job.createdAt);
  },
  fill(row, job) {
    row.querySelector(".progress").textContent = remark(job);
    row.querySelector(".tries").textContent = job.attempts;
  },
  parts: [".progress", ".tries"],
  enters: Boolean(filter.status),
});

// -- Figures and charts ---------------------------------------------------------------------------------

const overview = document.getElementById("figures");
const open = [[], [], []]; // times, queued, running: as received since the page was opened
let charts = [];

function remember({ now }) {
  const seconds = Date.now() / 1000;
  [seconds, now.queued, now.running].forEach((value, n) => open[n].push(value));
  while (open[0][0] < seconds - MINUTES) open.forEach((column) => column.shift());
}

function draw(anew = false) {
  const series = figures();
  if (!anew) remember(series);
  const ended = [series.at, series.submitted, series.succeeded, series.failed];
  if (charts.length && !anew) {
    charts[0].setData(ended);
    charts[1].setData(open);
    return;
  }
  charts.forEach((chart) => chart.destroy());
  const [endedPlace, openPlace] = ["chart-ended", "chart-open"].map((id) => document.getElementById(id));
  openPlace.replaceChildren();
  charts = [
    lineChart(endedPlace, ended, { span: HOUR, lines: [["blue", true], ["green", false], ["red", false]] }),
    lineChart(openPlace, open, { span: MINUTES, lines: [["grey", true], ["blue", false]] }),
  ];
}

refreshing(overview, REFRESH_EVERY);
followSize(overview, () => charts);
document.addEventListener("themechange", () => draw(true));
overview.addEventListener("htmx:after:swap", () => draw());
draw();
