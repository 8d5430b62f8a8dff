// Live updates: a websocket that resumes by sequence, or a long poll where websockets are blocked.

const FIRST_WAIT = 250; // ms before the first retry
const LONGEST_WAIT = 15_000; // ms
const TRIES_BEFORE_POLLING = 2; // failed connections in a row
const SOCKET_AGAIN = 30_000; // ms between attempts to open the websocket while polling
const PING_EVERY = 20_000; // ms; detects a connection that was lost without a close
const PONG_WITHIN = 10_000; // ms
const NO_RIGHT = 4401;

const sleep = (ms, signal) => new Promise((resolve) => {
  const timer = setTimeout(resolve, ms);
  signal?.addEventListener("abort", () => { clearTimeout(timer); resolve(); }, { once: true });
});

// Full wait with 50 % jitter, so that a thousand pages do not reconnect at the same moment.
const jittered = (ms) => ms / 2 + Math.random() * (ms / 2);

export class Live {
  /**
   * socket: address of the websocket. kind: of the messages, such as payment. after: the sequence that the page already shows, or null.
   * onMessage(message), onState("connecting" | "live" | "reconnecting" | "polling" | "ended").
   * poll(after, signal): handles the events after `after` and resolves to the next `after`; null: no polling.
   */
  constructor({ socket, kind = "payment", after = null, poll = null, onMessage, onState = () => {} }) {
    Object.assign(this, { url: new URL(socket, location.href), kind, after, poll, onMessage, onState });
    this.url.protocol = this.url.protocol.replace("http", "ws");
    this.failures = 0;
    this.asked = null; // the sequence of the last resume request
    this.poller = null;
    this.onState("connecting");
    this.connect();
    addEventListener("online", () => this.hurry());
    document.addEventListener("visibilitychange", () => { if (!document.hidden) this.hurry(); });
    addEventListener("pageshow", (event) => { if (event.persisted) this.hurry(); });
  }

  connect() {
    clearTimeout(this.timer);
    let opened = false;
    const socket = this.socket = new WebSocket(this.url);
    socket.onopen = () => {
      opened = true;
      this.failures = 0;
      this.stopPolling();
      this.onState("live");
      this.resume();
      this.pinger = setInterval(() => this.ping(), PING_EVERY);
    };
    socket.onmessage = ({ data }) => this.receive(JSON.parse(data));
    socket.onclose = ({ code }) => { if (this.socket === socket) this.closed(code, opened); };
  }

  closed(code, opened) {
    this.socket = null;
    clearInterval(this.pinger);
    clearTimeout(this.pong);
    if (code === NO_RIGHT) return this.end();
    if (!opened) this.failures += 1;
    if (this.poll && this.failures >= TRIES_BEFORE_POLLING) {
      this.startPolling();
      this.timer = setTimeout(() => this.connect(), jittered(SOCKET_AGAIN));
      return;
    }
    this.onState("reconnecting");
    this.timer = setTimeout(() => this.connect(), jittered(Math.min(LONGEST_WAIT, FIRST_WAIT * 2 ** this.failures)));
  }

  end() {
    this.ended = true;
    this.stopPolling();
    this.onState("ended");
  }

  /** The network or the user is back: reconnect without waiting. */
  hurry() {
    if (!this.socket && !this.ended) this.connect();
    else if (this.socket?.readyState === WebSocket.OPEN) this.ping();
  }

  ping() {
    if (this.socket?.readyState !== WebSocket.OPEN) return;
    this.socket.send('{"type":"ping"}');
    clearTimeout(this.pong);
    this.pong = setTimeout(() => {
      const dead = this.socket;
      dead?.close();
      if (this.socket === dead && dead) this.closed(1006, true); // close() of a dead connection takes long
    }, PONG_WITHIN);
  }

  resume() {
    if (this.after === null || this.socket?.readyState !== WebSocket.OPEN) return;
    this.asked = this.after;
    this.socket.send(JSON.stringify({ type: "resume", after: this.after }));
  }

  receive(message) {
    clearTimeout(this.pong); // any message proves the connection
    if (message.type !== this.kind) return;
    const { sequence } = message;
    // `after` advances only without a gap. A gap is requested once; later messages are shown at once, and older ones do not overwrite them.
    if (this.after === null || sequence <= this.after + 1) this.after = Math.max(this.after ?? 0, sequence);
    else if (this.asked !== this.after) this.resume();
    this.onMessage(message);
  }

  // -- Long poll, where websockets are blocked ---------------------------------------------------------

  async startPolling() {
    this.onState("polling");
    if (this.poller) return;
    const { signal } = this.poller = new AbortController();
    let wait = FIRST_WAIT;
    while (!signal.aborted) {
      try {
        this.after = await this.poll(this.after, signal);
        wait = FIRST_WAIT;
        if (!signal.aborted) this.onState("polling");
      } catch (error) {
        if (signal.aborted) return;
        if (error.status === 401 || error.status === 404) return this.end();
        this.onState("reconnecting");
        await sleep(jittered(wait = Math.min(LONGEST_WAIT, wait * 2)), signal);
      }
    }
  }

  stopPolling() {
    this.poller?.abort();
    this.poller = null;
  }
}

/** Long poll of `address` (contract section 3): the server waits for events; each is passed to onMessage. */
export function longPoll(address, onMessage) {
  return async (after, signal) => {
    const url = new URL(address, location.href);
    url.searchParams.set("after", after ?? 0);
    url.searchParams.set("wait", 20);
    const response = await fetch(url, { signal, headers: { Accept: "application/json" } });
    if (!response.ok) throw Object.assign(new Error(response.statusText), { status: response.status });
    const { events, next } = await response.json();
    events.forEach(onMessage);
    return next;
  };
}
