// Moderation over HTTP: POST a text, and the response is the verdict. build.mjs prepends
// `moderation`.

addEventListener('fetch', (event) => event.respondWith(answer(event.request)));

async function answer(request) {
  if (request.method !== 'POST') {
    return new Response('expected POST with a text for a body\n', { status: 405, headers: { allow: 'POST' } });
  }
  const text = await request.text();
  try {
    const { flagged, scores } = moderation.moderate([{ tag: 'text', val: text }]);
    return Response.json({ flagged, scores: Object.fromEntries(scores.map(({ category, score }) => [category, score])) });
  } catch (fault) {
    console.error(String(fault?.payload?.val ?? fault));
    return new Response('the text could not be judged\n', { status: 500 });
  }
}
