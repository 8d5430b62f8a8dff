// A live table: rows change in place, and new ones do not move what somebody reads. Shared by the lists of payments and jobs.

import { Live } from "./live.js";
import { ago, announce, showLive } from "./page.js";

const POLL_EVERY = 3000; // ms between refreshes of the rows where websockets are blocked
const DRAW_EVERY = 100; // ms: changes within it are drawn together
const MOST_ROWS = 50; // most rows in the table, and most new ones kept for it
const AWAY_AFTER = 3000; // ms without a connection until the page shows it

export const short = (id) => `${id.slice(0, 8)}…${id.slice(-4)}`;

export class LiveTable {
  /**
   * place: the element around the table, with the socket's address and the number of the latest event in its data.
   * kind: of live messages. idOf(item). fits(item): whether a new item belongs on this page.
   * describe(row, item): fill the cells that never change. fill(row, item): fill those that do; `parts` are their selectors.
   */
  constructor(place, { kind, idOf, fits, describe, fill, parts }) {
    Object.assign(this, { place, idOf, describe, fillCells: fill, parts, fitsFilter: fits });
    this.body = place.querySelector("tbody");
    this.total = document.querySelector("[data-total]");
    this.newer = document.getElementById("newer");
    this.waiting = new Map(); // id → item, new, not in the table yet, oldest first
    this.changed = new Map(); // id → item to be drawn
    this.unseen = 0; // number of new items, including those dropped from `waiting`
    this.drawing = null;
    this.drawnAt = new Date();
    this.listen();
    new Live({
      socket: place.dataset.socket,
      kind,
      after: Number(place.dataset.position),
      poll: (after, signal) => this.readRows(after, signal),
      onMessage: (message) => { this.drawnAt = new Date(); this.receive(message[kind]); },
      onState: (state) => this.showConnection(state),
    });
  }

  get first() {
    return this.place.dataset.first === "yes";
  }

  // -- Live messages -------------------------------------------------------------------------------------

  receive(item) {
    const id = this.idOf(item);
    if (item.sequence === 1 && !this.rowOf(id) && this.first && this.fitsFilter(item)) {
      this.unseen += 1;
      this.waiting.set(id, { ...item, createdAt: item.createdAt ?? item.updatedAt }); // the first change is the acceptance
      this.countOne();
      if (this.waiting.size > MOST_ROWS) this.waiting.delete(this.waiting.keys().next().value);
    } else if ((this.waiting.get(id)?.sequence ?? Infinity) < item.sequence) {
      this.waiting.set(id, { ...item, createdAt: this.waiting.get(id).createdAt });
    } else if (!((this.changed.get(id)?.sequence ?? 0) >= item.sequence)) {
      this.changed.set(id, item);
    }
    this.drawSoon();
  }

  drawSoon() {
    this.drawing ??= setTimeout(() => this.draw(), DRAW_EVERY);
  }

  draw() {
    this.drawing = null;
    for (const [id, item] of this.changed) {
      const row = this.rowOf(id);
      if (row && Number(row.dataset.sequence) < item.sequence) this.fill(row, item);
    }
    this.changed.clear();
    if (this.unseen && !this.readerIsThere()) this.showNew();
    this.showNewCount();
  }

  // -- Rows ------------------------------------------------------------------------------------------------

  rowOf(id) {
    return this.place.querySelector(`tr[data-id="${CSS.escape(id)}"]`);
  }

  blankRow(item) {
    const row = document.getElementById("row").content.firstElementChild.cloneNode(true);
    const id = this.idOf(item);
    const link = row.querySelector("a");
    row.dataset.id = id;
    row.dataset.created = item.createdAt;
    link.title = id;
    link.textContent = short(id);
    row.querySelector("[data-copy]").dataset.copy = id;
    this.describe(row, item);
    return row;
  }

  fill(row, item) {
    row.dataset.sequence = item.sequence;
    const state = row.querySelector(".state");
    if (state.firstElementChild?.dataset.status !== item.status) {
      const pill = document.querySelector(`template[data-pill="${CSS.escape(item.status)}"]`);
      if (pill) state.replaceChildren(pill.content.cloneNode(true));
    }
    showTime(row.querySelector(".at time"), item.updatedAt);
    this.fillCells(row, item);
    return row;
  }

  // Rows do not move while the pointer or the focus is on them, or while the page is scrolled into them.
  readerIsThere() {
    return this.body.matches(":hover") || this.body.contains(document.activeElement) || this.body.getBoundingClientRect().top < 0;
  }

  showNew() {
    for (const item of this.waiting.values()) this.prepend(this.fill(this.blankRow(item), item));
    this.waiting.clear();
    this.unseen = 0;
  }

  prepend(row) {
    row.classList.add("fresh");
    row.addEventListener("animationend", () => row.classList.remove("fresh"), { once: true });
    this.body.prepend(row);
    this.body.parentElement.hidden = false;
    this.place.querySelector(".empty")?.remove();
    if (this.body.rows.length <= MOST_ROWS) return;
    this.body.lastElementChild.remove();
    const older = document.querySelector("[data-older]"); // the link continues where the table now ends
    if (!older) return;
    const url = new URL(older.href);
    url.searchParams.delete("cursor");
    url.searchParams.set("to", this.body.lastElementChild.dataset.created.replace("Z", ""));
    older.href = url;
  }

  countOne() {
    const count = this.total.dataset.total = Number(this.total.dataset.total) + 1;
    this.total.textContent = count.toLocaleString("en");
  }

  showNewCount() {
    this.newer.hidden = this.unseen === 0;
    if (this.unseen) this.newer.querySelector("button").textContent = `${this.unseen.toLocaleString("en")} new`;
  }

  listen() {
    this.newer.querySelector("button").addEventListener("click", () => {
      this.showNew();
      this.showNewCount();
      document.getElementById(`${this.place.id}-title`).scrollIntoView({ block: "start" });
      this.body.querySelector("a")?.focus({ preventScroll: true });
      document.activeElement?.blur(); // the tab order continues at the first row, and new rows may be added again
    });
    const again = () => { if (this.unseen) this.drawSoon(); };
    this.place.addEventListener("pointerleave", again);
    this.place.addEventListener("focusout", again);
    addEventListener("scroll", again, { passive: true });
  }

  // -- Connection --------------------------------------------------------------------------------------------

  showConnection(state) {
    const offline = document.getElementById("offline");
    showLive(state);
    clearTimeout(this.away);
    if (state === "live" || state === "polling") {
      if (!offline.hidden) announce("Live again");
      offline.hidden = true;
    } else if (offline.hidden) {
      const since = this.drawnAt.toISOString().slice(11, 19);
      this.away = setTimeout(() => { offline.querySelector("[data-since]").textContent = `${since} UTC`; offline.hidden = false; }, AWAY_AFTER);
    }
  }

  // Polling, where websockets are blocked: fetches the page again and takes over changed rows.
  async readRows(after, signal) {
    await new Promise((resolve) => { setTimeout(resolve, POLL_EVERY); });
    if (signal.aborted || document.hidden) return after;
    const response = await fetch(location.href, { signal });
    if (!response.ok) throw Object.assign(new Error(response.statusText), { status: response.status });
    const fresh = new DOMParser().parseFromString(await response.text(), "text/html");
    for (const row of [...fresh.querySelectorAll(`#${this.place.id} tbody tr`)].reverse()) this.takeRow(row);
    return after;
  }

  takeRow(row) {
    const mine = this.rowOf(row.dataset.id);
    if (!mine) {
      if (!this.first || this.readerIsThere()) return;
      this.prepend(row);
      this.countOne();
    } else if (Number(mine.dataset.sequence) < Number(row.dataset.sequence)) {
      for (const part of [".state", ".at", ...this.parts]) mine.querySelector(part).replaceWith(row.querySelector(part));
      mine.dataset.sequence = row.dataset.sequence;
    }
  }
}

export function showTime(time, at) {
  time.dateTime = at;
  time.title = at.replace("T", " ").replace("Z", " UTC");
  time.textContent = ago(Date.parse(at));
}

/** Tell `element` to fetch itself again every `every` ms while the page is visible, and when it becomes visible. */
export function refreshing(element, every) {
  const refresh = () => { if (!document.hidden) element.dispatchEvent(new Event("refresh")); };
  setInterval(refresh, every);
  document.addEventListener("visibilitychange", refresh);
}
