// Runs the Worker in workerd, in front of a real infer (INFER_URL) and a test origin.

import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { createServer } from "node:http";
import { after, before, test } from "node:test";
import { Miniflare } from "miniflare";

const CLEAN = "Thank you for fixing the article so quickly, it reads much better now.";
const INSULT = "You are so dumb and stupid!";
const infer = process.env.INFER_URL;
assert.ok(infer, "INFER_URL is not set; expected the address of a running infer");

const reached = [];
const judged = [];
let origin, counter;

const listen = (handler) =>
  new Promise((ready) => {
    const server = createServer(handler).listen(0, "127.0.0.1", () => ready(server));
  });
const address = (server) => `http://127.0.0.1:${server.address().port}`;
const body = async (request) => {
  const chunks = [];
  for await (const chunk of request) chunks.push(chunk);
  return Buffer.concat(chunks);
};

before(async () => {
  origin = await listen(async (request, response) => {
    reached.push({ action: request.headers["x-infer-action"], body: String(await body(request)) });
    response.end("posted");
  });
  // A proxy in front of infer that records the comments sent to it.
  counter = await listen(async (request, response) => {
    const sent = await body(request);
    judged.push(String(sent));
    const { "content-type": type } = request.headers;
    const answer = await fetch(infer + request.url, { method: "POST", headers: { "content-type": type }, body: sent });
    response.writeHead(answer.status, Object.fromEntries(answer.headers)).end(Buffer.from(await answer.arrayBuffer()));
  });
});

after(() => {
  for (const server of [origin, counter]) server.close(), server.closeAllConnections();
});

// Starts the Worker. Its requests to its own host go to the origin.
async function worker(bindings, use) {
  const script = await readFile(new URL("worker.js", import.meta.url), "utf8");
  const miniflare = new Miniflare({
    modules: true,
    script,
    compatibilityDate: "2026-07-01",
    bindings: {
      INFER_URL: address(counter), COMMENT_PATH: "/comments", COMMENT_FIELD: "comment",
      FAIL: "closed", TIMEOUT_MS: "5000", CACHE_SECONDS: "60", ...bindings,
    },
  });
  try {
    await miniflare.ready;
    await use((comment, headers = {}) =>
      miniflare.dispatchFetch(`${address(origin)}/comments`, {
        method: "POST",
        headers: { "content-type": "application/json", ...headers },
        body: JSON.stringify({ comment }),
      }),
    );
  } finally {
    await miniflare.dispose();
  }
}

test("an allowed comment reaches the origin unchanged", () =>
  worker({}, async (post) => {
    const before = reached.length;
    const response = await post(CLEAN, { "x-infer-action": "forged" });
    assert.equal(response.status, 200);
    assert.equal(await response.text(), "posted");
    assert.deepEqual(reached.slice(before), [{ action: "allow", body: JSON.stringify({ comment: CLEAN }) }]);
  }));

test("a blocked comment does not reach the origin, and its verdict is cached", () =>
  worker({}, async (post) => {
    const [before, calls] = [reached.length, judged.length];
    assert.equal((await post(INSULT)).status, 403);
    assert.equal((await post(INSULT)).status, 403);
    assert.equal(reached.length, before);
    assert.equal(judged.length, calls + 1);
  }));

test("while infer is down, FAIL decides whether comments pass", async () => {
  const gone = await listen(() => {});
  const INFER_URL = address(gone);
  await new Promise((closed) => gone.close(closed));
  const before = reached.length;
  await worker({ INFER_URL }, async (post) => assert.equal((await post(CLEAN)).status, 503));
  assert.equal(reached.length, before);
  await worker({ INFER_URL, FAIL: "open" }, async (post) => assert.equal((await post(CLEAN)).status, 200));
  assert.equal(reached.at(-1).action, "unknown");
});

test("a response without a verdict counts as unknown", () =>
  worker({ INFER_URL: address(origin) }, async (post) => assert.equal((await post(CLEAN)).status, 503)));
