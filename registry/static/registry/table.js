// A live table: rows change in place, and new ones do not move what somebody reads. Shared by the lists of payments and jobs.

import { Live } from "./live.js";
import { ago, announce, showLive } from "./page.js";

const POLL_EVERY = 3000; // ms between refreshes of the rows where websockets are blocked
const DRAW_EVERY = 100; // ms: changes within it are drawn together
const ASK_EVERY = 500; // ms between questions to the server about rows
const MOST_ROWS = 50; // most rows in the table, and most new ones kept for it and asked for at once
const AWAY_AFTER = 3000; // ms without a connection until the page shows it

export const short = (id) => `${id.slice(0, 8)}…${id.slice(-4)}`;

export class LiveTable {
  /**
   * place: the element around the table, with the socket's address and the number of the latest event in its data.
   * kind: of live messages. idOf(item). fits(item): whether it passes the page's filters, as far as the page can tell.
   * New rows come from describe(row, item), which fills the cells that never change, and fill(row, item), which fills those that
   * do (`parts` are their selectors); or from ask(ids), which resolves to those rows that match all filters, by id.
   * enters: whether an item may begin to match after it was created. unsure: whether `fits` leaves filters to the server.
   */
  constructor(place, { kind, idOf, fits, describe = null, fill, parts, ask = null, enters = false, unsure = false }) {
    Object.assign(this, { place, idOf, describe, fillCells: fill, parts, fitsFilter: fits, ask, enters, unsure });
    this.body = place.querySelector("tbody");
    this.total = document.querySelector("[data-total]");
    this.newer = document.getElementById("newer");
    this.waiting = new Map(); // id → item, new, not in the table yet, oldest first
    this.ready = new Map(); // id → row of a waiting item, if the server made it
    this.asked = new Map(); // id → item about which the server is asked next
    this.changed = new Map(); // id → item to be drawn
    this.leaving = new Set(); // ids of rows that no longer match
    this.unseen = 0; // number of new items, including those dropped from `waiting`
    this.drawing = null;
    this.drawnAt = new Date();
    this.listen();
    new Live({
      socket: place.dataset.socket,
      kind,
      after: Number(place.dataset.position),
      poll: (after, signal) => this.readRows(after, signal),
      onMessage: (message) => { this.drawnAt = new Date(); this.receive({ ...message[kind], shown: message.shown ?? message[kind].status }); },
      onState: (state) => this.showConnection(state),
    });
  }

  get first() {
    return this.place.dataset.first === "yes";
  }

  // -- Live messages -------------------------------------------------------------------------------------

  receive(item) {
    const id = this.idOf(item);
    if (this.rowOf(id)) {
      if (!((this.changed.get(id)?.sequence ?? 0) >= item.sequence)) this.changed.set(id, item);
    } else if (this.waiting.has(id)) {
      this.update(id, item);
    } else {
      this.receiveNew(id, { ...item, createdAt: item.createdAt ?? (item.sequence === 1 ? item.updatedAt : null) }); // the first change is the acceptance
    }
    this.drawSoon();
  }

  receiveNew(id, item) {
    if (!this.first || (item.sequence > 1 && !this.enters) || !this.fitsFilter(item, item.createdAt)) this.asked.delete(id);
    else if (this.ask && (this.unsure || item.sequence > 1)) this.toAsk(id, item);
    else if (this.belongs(item.createdAt)) this.hold(id, item);
  }

  /** Keep a new item for the table. */
  hold(id, item) {
    this.unseen += 1;
    this.waiting.set(id, item);
    this.count(1);
    if (this.waiting.size > MOST_ROWS) this.forget(this.waiting.keys().next().value);
  }

  forget(id) {
    this.waiting.delete(id);
    this.ready.delete(id);
  }

  /** A waiting item has changed. */
  update(id, item) {
    const held = this.waiting.get(id);
    if (held.sequence >= item.sequence) return;
    if (this.fitsFilter(item, held.createdAt)) {
      this.waiting.set(id, { ...item, createdAt: held.createdAt });
      return;
    }
    this.forget(id);
    this.unseen -= 1;
    this.count(-1);
  }

  toAsk(id, item) {
    this.asked.delete(id);
    this.asked.set(id, item); // the latest ones are asked about
    if (this.asked.size > MOST_ROWS) this.asked.delete(this.asked.keys().next().value);
  }

  drawSoon() {
    this.drawing ??= setTimeout(() => this.draw(), DRAW_EVERY);
  }

  async draw() {
    for (const [id, item] of this.changed) {
      const row = this.rowOf(id);
      if (!row || Number(row.dataset.sequence) >= item.sequence) continue;
      this.fill(row, item);
      if (!this.fitsFilter(item, row.dataset.created)) this.leave(id);
      else if (this.unsure) this.toAsk(id, item);
    }
    this.changed.clear();
    if (this.ask) await this.askServer();
    if (!this.readerIsThere()) {
      if (this.unseen) this.showNew();
      this.removeLeaving();
    }
    this.showNewCount();
    this.drawing = null;
    if (this.changed.size || this.asked.size) this.drawSoon();
  }

  // -- The server's word on the filters -------------------------------------------------------------------

  /** Ask which items match, and for the rows of those that are to be shown. */
  async askServer() {
    const asked = new Map(this.asked);
    this.asked.clear();
    const ids = [...asked.keys(), ...(this.readerIsThere() ? [] : [...this.waiting.keys()].filter((id) => !this.ready.has(id)))];
    if (!ids.length) return;
    const rows = await this.rowsOf([...new Set(ids)]);
    if (!rows) {
      for (const [id, item] of asked) if (!this.asked.has(id)) this.asked.set(id, item);
      await new Promise((resolve) => { setTimeout(resolve, ASK_EVERY); });
      return;
    }
    for (const id of ids) this.take(id, rows.get(id), asked.get(id));
    await new Promise((resolve) => { setTimeout(resolve, ASK_EVERY); }); // changes within it are asked about together
  }

  /** Rows by id, at most MOST_ROWS at once; null if the server does not answer now. */
  async rowsOf(ids) {
    const found = new Map();
    for (let start = 0; start < ids.length; start += MOST_ROWS) {
      try {
        for (const row of await this.ask(ids.slice(start, start + MOST_ROWS))) found.set(row.dataset.id, row);
      } catch {
        return null;
      }
    }
    return found;
  }

  take(id, row, item) {
    const mine = this.rowOf(id);
    if (mine) {
      if (row) this.patch(mine, row);
      else this.leave(id);
    } else if (!row) {
      if (!this.waiting.has(id)) return;
      this.forget(id);
      this.unseen -= 1;
      this.count(-1);
    } else if (this.belongs(row.dataset.created)) {
      if (!this.waiting.has(id)) this.hold(id, { ...item, createdAt: row.dataset.created });
      this.ready.set(id, row);
    }
  }

  /** Whether what was created then is not further back than the table goes. */
  belongs(created) {
    const last = this.body.lastElementChild;
    return !last || !this.older() || created > last.dataset.created;
  }

  // -- Rows ------------------------------------------------------------------------------------------------

  rowOf(id) {
    return this.place.querySelector(`tr[data-id="${CSS.escape(id)}"]`);
  }

  older() {
    return document.querySelector("[data-older]");
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
    return this.fill(row, item);
  }

  fill(row, item) {
    row.dataset.sequence = item.sequence;
    const state = row.querySelector(".state");
    if (state.firstElementChild?.dataset.status !== item.shown) {
      const pill = document.querySelector(`template[data-pill="${CSS.escape(item.shown)}"]`);
      if (pill) state.replaceChildren(pill.content.cloneNode(true));
    }
    showTime(row.querySelector(".at time"), item.updatedAt);
    this.fillCells(row, item);
    return row;
  }

  /** Take over what changes from another row of the same item. */
  patch(mine, row) {
    if (Number(mine.dataset.sequence) >= Number(row.dataset.sequence)) return;
    for (const part of [".state", ".at", ...this.parts]) mine.querySelector(part).replaceWith(row.querySelector(part));
    mine.dataset.sequence = row.dataset.sequence;
  }

  // Rows do not move while the pointer or the focus is on them or on the button above them, or while the page is scrolled into them.
  readerIsThere() {
    return this.body.matches(":hover") || this.newer.matches(":hover") || this.body.contains(document.activeElement) || this.body.getBoundingClientRect().top < 0;
  }

  showNew() {
    for (const [id, item] of this.waiting) {
      const row = this.ready.get(id) ?? (this.ask ? null : this.blankRow(item));
      if (!row) continue; // the server makes it
      if (Number(row.dataset.sequence) < item.sequence) this.fill(row, item);
      this.insert(row);
      this.forget(id);
    }
    this.unseen = this.waiting.size;
  }

  /** Put a row in its place: the table is ordered by creation, the newest first. */
  insert(row) {
    row.classList.add("fresh");
    row.addEventListener("animationend", () => row.classList.remove("fresh"), { once: true });
    const behind = [...this.body.rows].find((other) => other.dataset.created <= row.dataset.created);
    this.body.insertBefore(row, behind ?? null);
    this.body.parentElement.hidden = false;
    this.place.querySelector(".empty")?.remove();
    if (this.body.rows.length <= Math.max(MOST_ROWS, this.loaded ?? 0)) return;
    this.body.lastElementChild.remove();
    this.continueAtTheEnd();
  }

  /** The link to older rows continues where the table now ends. */
  continueAtTheEnd() {
    const older = this.older();
    const last = this.body.lastElementChild;
    if (!older || !last) return;
    const url = new URL(older.href);
    if (last.dataset.cursor) {
      url.searchParams.set("cursor", last.dataset.cursor);
    } else {
      url.searchParams.delete("cursor");
      url.searchParams.set("to", last.dataset.created.replace("Z", ""));
    }
    older.href = url;
  }

  leave(id) {
    this.leaving.add(id);
    this.rowOf(id)?.classList.add("leaving");
  }

  /** Remove rows that no longer match; one that matches again meanwhile stays. */
  removeLeaving() {
    for (const id of this.leaving) {
      const row = this.rowOf(id);
      if (!row) continue;
      row.remove();
      this.count(-1);
    }
    this.leaving.clear();
    if (this.body.rows.length || this.body.parentElement.hidden) return;
    this.body.parentElement.hidden = true;
    const none = Object.assign(document.createElement("div"), { className: "empty" });
    none.append(Object.assign(document.createElement("h2"), { textContent: "Nothing matches any more" }));
    this.place.append(none);
  }

  count(change) {
    if (!this.total) return;
    const count = this.total.dataset.total = Math.max(0, Number(this.total.dataset.total) + change);
    this.total.textContent = count.toLocaleString("en") + (this.total.dataset.more ?? "");
  }

  showNewCount() {
    this.newer.hidden = this.unseen === 0;
    if (this.unseen) this.newer.querySelector("button").textContent = `${this.unseen.toLocaleString("en")} new`;
  }

  listen() {
    this.newer.querySelector("button").addEventListener("click", async () => {
      if (this.ask) {
        const rows = await this.rowsOf([...this.waiting.keys()].filter((id) => !this.ready.has(id)));
        for (const [id, row] of rows ?? []) this.take(id, row);
      }
      this.showNew();
      this.removeLeaving();
      this.showNewCount();
      document.getElementById(`${this.place.id}-title`).scrollIntoView({ block: "start" });
      this.body.querySelector("a")?.focus({ preventScroll: true });
      document.activeElement?.blur(); // the tab order continues at the first row, and new rows may be added again
    });
    const again = () => { if (this.unseen || this.leaving.size) this.drawSoon(); };
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
    await this.takePage(new DOMParser().parseFromString(await response.text(), "text/html"));
    return after;
  }

  async takePage(page) {
    const fresh = [...page.querySelectorAll(`#${this.place.id} tbody tr`)];
    const shown = new Set(fresh.map((row) => row.dataset.id));
    const end = page.querySelector("[data-older]") ? fresh.at(-1)?.dataset.created ?? "" : "";
    const others = [...this.body.rows].filter((row) => !shown.has(row.dataset.id));
    for (const row of others) if (row.dataset.created > end) this.leave(row.dataset.id);
    const behind = others.filter((row) => row.dataset.created <= end).map((row) => row.dataset.id);
    const found = this.ask && behind.length ? await this.rowsOf(behind) : null;
    if (found) for (const id of behind) this.take(id, found.get(id));
    for (const row of fresh.reverse()) this.takeRow(row);
    if (!this.readerIsThere()) this.removeLeaving();
  }

  takeRow(row) {
    const mine = this.rowOf(row.dataset.id);
    if (mine) {
      this.patch(mine, row);
    } else if (this.first && !this.readerIsThere()) {
      this.insert(row);
      this.count(1);
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
