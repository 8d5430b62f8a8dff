// A shop that takes payments by Registry, in Node (20 or newer, no packages): docs/quickstart.md explains it.
//
// POST /buy creates an order and sends the payer to the payment page, GET /orders/ID is where the payer comes back, POST /hook
// receives Registry's webhooks. Orders are files in the folder orders/.

import { createHmac, randomUUID, timingSafeEqual } from "node:crypto";
import { existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { createServer } from "node:http";

const { REGISTRY = "http://127.0.0.1:8000", SHOP = "http://127.0.0.1:5000", PROCESSOR, REGISTRY_KEY, WEBHOOK_SECRET } = process.env;
for (const [name, step] of [["REGISTRY_KEY", 1], ["WEBHOOK_SECRET", 3]]) {
  if (!process.env[name]) {
    console.error(`set ${name}: step ${step} of the quickstart`);
    process.exit(1);
  }
}
const PRICE = "19.90"; // from the shop's own data, never from the browser
const LARGEST = 65_536; // bytes of a webhook
const secret = Buffer.from(WEBHOOK_SECRET.replace(/^whsec_/, ""), "base64");
mkdirSync("orders", { recursive: true });

async function registry(path, body) {
  const response = await fetch(REGISTRY + path, {
    method: body ? "POST" : "GET",
    headers: { Authorization: `Bearer ${REGISTRY_KEY}`, "Content-Type": "application/json" },
    body: body && JSON.stringify(body),
    signal: AbortSignal.timeout(10_000),
  });
  const answer = await response.json();
  if (!response.ok) throw new Error(`${response.status} ${answer.detail}`); // 503, or no response: send the same again
  return answer;
}

// -- 1. Create a payment ------------------------------------------------------------------------------------

async function buy() {
  const order = randomUUID(); // also the payment's id: sending it again cannot pay twice
  writeFileSync(`orders/${order}.json`, JSON.stringify({ amount: PRICE }), { flag: "wx", flush: true });
  const payment = await registry("/payments", {
    correlationId: order,
    amount: PRICE,
    description: "Two glasses",
    returnUrl: `${SHOP}/orders/${order}`,
    processor: PROCESSOR,
  });
  return new URL(payment.liveUrl, REGISTRY).href;
}

// -- 2. Verify the webhook ----------------------------------------------------------------------------------

function isGenuine(body, headers) {
  const [id, sentAt, signatures] = ["id", "timestamp", "signature"].map((name) => headers[`webhook-${name}`] ?? "");
  if (!/^\d{1,12}$/.test(sentAt) || Math.abs(Date.now() / 1000 - sentAt) > 300) return false; // an old message may be a replay
  const wanted = createHmac("sha256", secret).update(`${id}.${sentAt}.`).update(body).digest();
  return signatures.split(" ").some((one) => {
    const given = Buffer.from(one.replace(/^v1,/, ""), "base64");
    return given.length === wanted.length && timingSafeEqual(given, wanted);
  });
}

function hook(body, headers) {
  if (!isGenuine(body, headers)) return 400; // the raw body, before any JSON parser has changed it
  const event = JSON.parse(body);
  if (event.type === "payment.succeeded") shipIfPaid(event.data);
  return 204; // also for types that this shop does not know
}

// -- 3. Ship exactly once -----------------------------------------------------------------------------------

// Webhooks come late, twice and in any order: the file that only one call can create decides. In a shop with a database it is
// UPDATE orders SET shipped_at = now() WHERE id = … AND shipped_at IS NULL.
function shipIfPaid(payment) {
  const order = `orders/${payment.correlationId}`;
  if (payment.status !== "succeeded" || !existsSync(`${order}.json`)) return;
  if (JSON.parse(readFileSync(`${order}.json`)).amount !== payment.amount) return;
  try {
    writeFileSync(`${order}.shipped`, new Date().toISOString(), { flag: "wx", flush: true });
  } catch (error) {
    if (error.code === "EEXIST") return;
    throw error;
  }
  console.log(`ship order ${payment.correlationId}`);
}

// -- 4. The payer comes back --------------------------------------------------------------------------------

// That somebody opened the page at `returnUrl` proves nothing: ask Registry.
async function orderPage(order) {
  const payment = await registry(`/payments/${order}/status`);
  shipIfPaid(payment); // in case the webhook is late
  return `<!doctype html><title>Your order</title><p>Order ${order}: payment ${payment.status}</p>`;
}

async function bodyOf(request) {
  const parts = [];
  let size = 0;
  for await (const part of request) {
    size += part.length;
    if (size > LARGEST) throw new Error("the body is too large");
    parts.push(part);
  }
  return Buffer.concat(parts);
}

async function answer(request) {
  const body = await bodyOf(request);
  const [, order] = request.url.match(/^\/orders\/([0-9a-f-]{36})$/) ?? [];
  if (request.method === "POST" && request.url === "/buy") return [303, { Location: await buy() }];
  if (request.method === "POST" && request.url === "/hook") return [hook(body, request.headers)];
  if (request.method === "GET" && order) return [200, { "Content-Type": "text/html; charset=utf-8" }, await orderPage(order)];
  return [404];
}

createServer(async (request, response) => {
  const [status, headers, text] = await answer(request).catch((error) => {
    console.error(`${request.method} ${request.url}: ${error.message}`);
    return [500]; // Registry sends a webhook again after a 5xx
  });
  response.writeHead(status, headers).end(text);
}).listen(new URL(SHOP).port, "127.0.0.1");
