// Sends each comment to infer before it reaches the origin. All other requests pass.
//
// Bindings, in wrangler.toml:
//   INFER_URL        address of infer, such as https://infer.example.org
//   INFER_KEY        API key for infer (a secret; optional)
//   COMMENT_PATH     path of the POST requests that carry comments
//   COMMENT_FIELD    member of their JSON body, or field of their form, with the comment
//   FAIL             `open` passes comments while infer is unavailable; else they are rejected
//   TIMEOUT_MS       timeout of a request to infer
//   CACHE_SECONDS    lifetime of a cached verdict; its key is the hash of the comment

const MAX_BODY_BYTES = 256 * 1024;

export default {
  async fetch(request, env, context) {
    const url = new URL(request.url);
    if (request.method !== "POST" || url.pathname !== env.COMMENT_PATH) return fetch(request);
    if (Number(request.headers.get("content-length")) > MAX_BODY_BYTES) return reject(413, "the comment is too large");
    const body = await request.clone().arrayBuffer();
    if (body.byteLength > MAX_BODY_BYTES) return reject(413, "the comment is too large");
    const comment = await read(request.clone(), env.COMMENT_FIELD);
    if (comment === null) return reject(400, `no text in the field \`${env.COMMENT_FIELD}\``);
    const action = await judge(comment, env, context);
    if (action === "block") return reject(403, "the comment was not accepted");
    if (action === "unknown" && env.FAIL !== "open") return reject(503, "comments cannot be accepted now");
    // Replaces a header of this name that the client sent.
    const headers = new Headers(request.headers);
    headers.set("x-infer-action", action);
    return fetch(new Request(request, { headers }));
  },
};

// Returns the comment's text, or null.
async function read(request, field) {
  try {
    const type = request.headers.get("content-type") ?? "";
    const value = type.includes("json") ? (await request.json())?.[field] : (await request.formData()).get(field);
    return typeof value === "string" ? value : null;
  } catch {
    return null;
  }
}

// Returns infer's verdict: `allow`, `review` or `block`; `unknown` if infer is unavailable.
async function judge(comment, env, context) {
  const hash = await crypto.subtle.digest("SHA-256", new TextEncoder().encode(`${env.INFER_URL}\n${comment}`));
  const name = [...new Uint8Array(hash)].map((byte) => byte.toString(16).padStart(2, "0")).join("");
  const key = new Request(`https://verdicts.invalid/${name}`);
  const cached = await caches.default.match(key);
  if (cached) return cached.text();
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
  // Only a verdict has the header. Errors, such as a 403 for a wrong key, do not.
  if (!["allow", "review", "block"].includes(action)) return "unknown";
  const headers = { "cache-control": `max-age=${Number(env.CACHE_SECONDS)}` };
  context.waitUntil(caches.default.put(key, new Response(action, { headers })));
  return action;
}

function reject(status, message) {
  return Response.json({ error: message }, { status });
}
