// Page of one job: progress is drawn from live messages; any other change fetches the part of the page that changes.

import { Fragment } from "./fragment.js";
import { Live, longPoll } from "./live.js";
import { showLive } from "./page.js";
import { progressText } from "./progress.js";

const place = document.getElementById("job");
const kind = document.querySelector("h1").textContent;
const fragment = new Fragment(place, () => `${kind} – ${fragment.word}`);

function showProgress({ status, progress }) {
  const bar = place.querySelector("[data-progress-here]");
  bar.hidden = !progress;
  if (!progress) return;
  bar.querySelector("[data-progress-text]").textContent = progressText(progress);
  const meter = bar.querySelector("progress");
  if (status === "succeeded") meter.value = 100;
  else if (progress.total > 0) meter.value = Math.max(0, Math.min(100, (100 * progress.done) / progress.total));
  else meter.removeAttribute("value"); // under way, of an unknown length
}

function receive({ job }) {
  if (job.sequence <= fragment.shown) return;
  fragment.shown = job.sequence;
  const before = place.querySelector("[data-pill-here] .pill").dataset.status;
  showProgress(job);
  if (job.status === "running" && before === "running" && job.progress) return;
  fragment.showStatus(job.status);
  fragment.fetch();
}

new Live({
  socket: place.dataset.socket,
  kind: "job",
  after: fragment.shown,
  poll: longPoll(place.dataset.events, receive),
  onMessage: receive,
  onState: showLive,
});
