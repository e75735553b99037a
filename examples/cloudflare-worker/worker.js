// A comment is judged before it reaches the origin. Everything else passes.
//
// Bindings, in wrangler.toml:
//   INFER_URL        where infer is, such as https://infer.example.org
//   INFER_KEY        its API key (a secret; may be absent)
//   COMMENT_PATH     which POST requests are judged
//   COMMENT_FIELD    the member of their JSON body, or field of their form, that holds the comment
//   FAIL             `open` lets comments pass while infer cannot be reached; anything else refuses them
//   TIMEOUT_MS       how long infer may take
//   CACHE_SECONDS    how long a verdict is kept, by the hash of the comment

const MAX_BODY_BYTES = 256 * 1024;

export default {
  async fetch(request, env, context) {
    const url = new URL(request.url);
    if (request.method !== "POST" || url.pathname !== env.COMMENT_PATH) return fetch(request);
    if (Number(request.headers.get("content-length")) > MAX_BODY_BYTES) return refuse(413, "the comment is too large");
    const body = await request.clone().arrayBuffer();
    if (body.byteLength > MAX_BODY_BYTES) return refuse(413, "the comment is too large");
    const comment = await read(request.clone(), env.COMMENT_FIELD);
    if (comment === null) return refuse(400, `no text in the field \`${env.COMMENT_FIELD}\``);
    const action = await judge(comment, env, context);
    if (action === "block") return refuse(403, "the comment was not accepted");
    if (action === "unknown" && env.FAIL !== "open") return refuse(503, "comments cannot be accepted now");
    // A client cannot say this of itself: what it sent under the name is replaced.
    const headers = new Headers(request.headers);
    headers.set("x-infer-action", action);
    return fetch(new Request(request, { headers }));
  },
};

// The comment's text, or null.
async function read(request, field) {
  try {
    const type = request.headers.get("content-type") ?? "";
    const value = type.includes("json") ? (await request.json())?.[field] : (await request.formData()).get(field);
    return typeof value === "string" ? value : null;
  } catch {
    return null;
  }
}

// `allow`, `review` or `block` as infer says; `unknown` where it gives no answer.
async function judge(comment, env, context) {
  const hash = await crypto.subtle.digest("SHA-256", new TextEncoder().encode(`${env.INFER_URL}\n${comment}`));
  const name = [...new Uint8Array(hash)].map((byte) => byte.toString(16).padStart(2, "0")).join("");
  const key = new Request(`https://verdicts.invalid/${name}`);
  const kept = await caches.default.match(key);
  if (kept) return kept.text();
  let action;
  try {
    const headers = { "content-type": "application/json" };
    if (env.INFER_KEY) headers.authorization = `Bearer ${env.INFER_KEY}`;
    const answer = await fetch(`${env.INFER_URL}/moderate?mode=gate`, {
      method: "POST",
      headers,
      body: JSON.stringify({ input: comment }),
      signal: AbortSignal.timeout(Number(env.TIMEOUT_MS)),
    });
    action = answer.headers.get("x-infer-action");
  } catch {
    return "unknown";
  }
  // Only infer sends the header, and no error of its has it: a 403 for a wrong key is no verdict.
  if (!["allow", "review", "block"].includes(action)) return "unknown";
  const headers = { "cache-control": `max-age=${Number(env.CACHE_SECONDS)}` };
  context.waitUntil(caches.default.put(key, new Response(action, { headers })));
  return action;
}

function refuse(status, message) {
  return Response.json({ error: message }, { status });
}
