"""Hooks for Schemathesis: real model names and images in every other request.

Schemathesis cannot generate them. The other requests stay as generated. The number of responses of
each status is printed at the end. A route that never answered 2xx fails the run, because the schema
of its successful response was not checked.
"""

import atexit
import base64
import collections
import os
import pathlib
import sys
import threading

import schemathesis

PHOTO = (pathlib.Path(__file__).parents[1] / "data/photos/coffee.jpg").read_bytes()
IMAGE = "data:image/jpeg;base64," + base64.b64encode(PHOTO).decode()
# Members that keep their generated values; the server rejects most generated values of the others.
CHAT = {"messages", "prompt", "stop", "stream", "stream_options", "user", "metadata"}

lock = threading.Lock()
requests = collections.Counter()
answers = collections.defaultdict(collections.Counter)


def good(path, body):
    """Returns `body` with the members of a valid request."""
    if path == "/classify":
        return PHOTO
    body = body if isinstance(body, dict) else {}
    if path.startswith(("/v1/chat", "/v1/completions")):
        body = {name: value for name, value in body.items() if name in CHAT}
        own = {"prompt": "Once"} if path == "/v1/completions" else {"messages": [{"role": "user", "content": "Hello"}]}
        return own | {"model": "tiny", "max_tokens": 4, "logprobs": 1 if "prompt" in own else True, "stream": body.get("stream") is True}
    if path.endswith("comments:analyze"):
        return {"comment": {"text": str(body.get("comment", "a text")) or "a text"}, "requestedAttributes": {"TOXICITY": {}, "THREAT": {}}}
    if path.startswith("/v2"):
        return {"inputs": [{"name": "texts", "shape": [1], "datatype": "BYTES", "data": ["a text"]}]}
    if path == "/v1/embeddings":
        return {"model": "embedder", "input": str(body.get("input") or "a text"), "truncate": True}
    if path == "/rerank":
        return {"query": str(body.get("query") or "a query"), "texts": ["one", "two"], "return_text": True, "truncate": True}
    content = body.get("input")
    part = {"type": "image_url", "image_url": {"url": IMAGE}}
    text = {"type": "text", "text": str(content)}
    return {"input": [text, part] if isinstance(content, list) else str(content), "infer": {"explain": True}}


@schemathesis.hook
def before_call(context, case, kwargs):
    operation = case.operation
    label = f"{case.method} {operation.path}"
    with lock:
        requests[label] += 1
        as_generated = requests[label] % 2 == 1
    if as_generated or case.method != operation.method.upper():
        return
    if case.path_parameters:
        names = {"model": "toxic-bilstm", "version": "1"}
        case.path_parameters = {name: names.get(name, value) for name, value in case.path_parameters.items()}
    if operation.method.upper() == "POST":
        case.body = good(operation.path, case.body)
        case.media_type = "application/octet-stream" if operation.path == "/classify" else "application/json"
        case.headers = {}
        case.query = {name: value for name, value in (case.query or {}).items() if name == "mode" and value == "gate"}


@schemathesis.hook
def after_call(context, case, response):
    if case.method == case.operation.method.upper():
        with lock:
            answers[f"{case.method} {case.operation.path}"][response.status_code] += 1


@atexit.register
def report():
    if not answers:
        return
    for label in sorted(answers):
        print(f"{label:50}", "  ".join(f"{status}: {count}" for status, count in sorted(answers[label].items())))
    never = [label for label, statuses in answers.items() if not any(200 <= status < 300 for status in statuses)]
    if never:
        print(f"no 2xx response, so the schema of the response was not checked: {', '.join(sorted(never))}", file=sys.stderr)
        sys.stdout.flush()
        os._exit(1)
