// Line charts over the last minutes, by uPlot, in the page's colours.

/** The colour of a class such as `blue`, or of a property such as `--muted`. */
export function colour(name) {
  const probe = document.body.appendChild(document.createElement("span"));
  probe.className = name.startsWith("--") ? "" : name;
  probe.style.color = `var(${name.startsWith("--") ? name : "--state"})`;
  const found = getComputedStyle(probe).color;
  probe.remove();
  return found;
}

/**
 * A chart in `place` of the last `span` seconds. lines: pairs of a colour's name and whether the line is dashed.
 * least: what the vertical axis reaches at least. words(value): labels of that axis, which take `wide` pixels.
 */
export function lineChart(place, data, { span, lines, least = 1, words = (value) => value.toLocaleString("en"), wide = 44 }) {
  const axis = { stroke: colour("--muted"), font: `12px ${getComputedStyle(document.body).fontFamily}`, grid: { stroke: colour("--line"), width: 1 }, ticks: { show: false } };
  return new uPlot({
    width: place.clientWidth,
    height: place.clientHeight,
    padding: [8, 20, 0, 0],
    cursor: { show: false },
    legend: { show: false },
    scales: {
      x: { time: true, range: () => { const now = Date.now() / 1000; return [now - span, now]; } },
      y: { range: (_, __, top) => [0, Math.max(least, (top || 0) * 1.15)] },
    },
    axes: [
      { ...axis, grid: { show: false }, space: 56, size: 28, gap: 4, values: (_, ticks) => ticks.map((at) => moment(new Date(at * 1000), span)) },
      { ...axis, size: wide, gap: 6, space: 28, values: (_, ticks) => ticks.map(words) },
    ],
    series: [{}, ...lines.map(([name, dashed]) => ({ stroke: colour(name), width: 1.75, dash: dashed ? [4, 3] : undefined, points: { show: lonely, size: 6, fill: colour(name) }, spanGaps: true }))],
  }, data, place);
}

const DAY = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short" });

function moment(at, span) { // the time of day; the date on a chart of several days
  return span > 172800 ? DAY.format(at) : at.toTimeString().slice(0, 5);
}

function lonely(chart, line) { // a single value is drawn as a point
  return chart.data[line].filter((value) => value !== null).length === 1;
}

/** Charts follow the width of `element`; `charts()` returns those that are shown now. */
export function followSize(element, charts) {
  new ResizeObserver(() => {
    for (const chart of charts()) {
      const place = chart.root.parentElement;
      if (place.clientWidth !== chart.width) chart.setSize({ width: place.clientWidth, height: place.clientHeight });
    }
  }).observe(element);
}

/** The series that the server put into the page. */
export function figures() {
  return JSON.parse(document.getElementById("series").dataset.series);
}
