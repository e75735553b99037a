"""Cost of a chat's guard: streamed answers with and without one.

    python benches/peers/guard.py --model builtin:smollm2
    python benches/peers/guard.py --model phi3-q4_k_m.gguf --streams 1,8

One server has the same language model under four names: `open` has no guard, `list` one with a list
of phrases for its output, `moderate` one with the default moderator, and `input` one for the turns
only. The sides take turns. Each round streams answers of --tokens tokens, with --streams at once,
and measures in milliseconds the time to the first text and the gaps between two texts, and the
rate in tokens per second. No text is flagged. Guards hold back 32 tokens, judge every 8, and send
released tokens at the pace of the model.
"""

import concurrent.futures
import http.client
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

import sides

GUARDS = {
    "open": "",
    "list": 'output = "list"',
    "moderate": 'output = "moderate"',
    "input": 'input = "moderate"',
}
PROMPT = "Describe the market, the river and the old bridge of a small town, in order of a walk, for visitor number {}."


def configuration(port: int, model: str, side: str, guests: Path) -> str:
    """Returns a configuration with one side's guard."""
    source = model if ":" in model else str(Path(model).resolve())
    return f"""
[server]
listen = "127.0.0.1:{port}"
[models.chat]
source = {json.dumps(source)}
[chat.guard]
{GUARDS[side]}
thresholds = {{ harassment = 1.0, hate = 1.0, "harassment/threatening" = 1.0, "hate/threatening" = 1.0 }}
categories = ["phrases", "harassment", "hate"]
[models.moderation]
source = "builtin:moderation-encoder"
[components.moderate]
source = "builtin:moderate"
models = {{ text = "moderation" }}
[components.list]
source = {json.dumps(str(guests / "phrases.wasm"))}
settings = {{ phrases = "no text has this phrase" }}
"""


def stream(port: int, number: int, tokens: int) -> tuple[float, list[float], int]:
    """Streams an answer. Returns the time to its first text, gaps between texts, and tokens."""
    body = {
        "model": "chat", "max_tokens": tokens, "seed": number, "temperature": 1, "stream": True,
        "stream_options": {"include_usage": True}, "messages": [{"role": "user", "content": PROMPT.format(number)}],
    }  # fmt: skip
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=300)
    began = time.perf_counter()
    connection.request("POST", "/v1/chat/completions", json.dumps(body), {"content-type": "application/json"})
    response = connection.getresponse()
    times, generated = [], 0
    for line in response:
        if not line.startswith(b"data: {"):
            continue
        event = json.loads(line[6:])
        if "error" in event:
            raise ValueError(f"a stream failed: {event}")
        generated = event.get("usage", {}).get("completion_tokens", generated)
        if any(choice["delta"].get("content") for choice in event["choices"]):
            times.append(time.perf_counter())
        if any(choice["finish_reason"] == "content_filter" for choice in event["choices"]):
            raise ValueError("a text was flagged, expected none")
    connection.close()
    return times[0] - began, [later - time for time, later in zip(times, times[1:])], generated


def turn(port: int, number: int, at_once: int, answers: int, tokens: int) -> dict[str, float]:
    """Measures streams, `at_once` of them together."""
    began = time.perf_counter()
    with concurrent.futures.ThreadPoolExecutor(at_once) as pool:
        numbers = range(number * answers, (number + 1) * answers)
        streams = list(pool.map(lambda index: stream(port, index, tokens), numbers))
    took = time.perf_counter() - began
    gaps = sorted(gap * 1e3 for _, gaps, _ in streams for gap in gaps)
    return {
        f"{at_once}: first ms": statistics.median(first * 1e3 for first, _, _ in streams),
        f"{at_once}: gap p50 ms": statistics.median(gaps),
        f"{at_once}: gap p99 ms": sides.percentile(gaps, 0.99),
        f"{at_once}: tokens/s": sum(generated for _, _, generated in streams) / took,
    }


def main() -> list[dict]:
    """Measures all sides with each number of streams."""
    parser = sides.parser(__doc__, 5)
    parser.add_argument("--model", default="builtin:smollm2", help="source of the language model (default: %(default)s)")
    parser.add_argument("--streams", default="1,8", help="numbers of streams at once, separated by commas (default: %(default)s)")
    parser.add_argument("--answers", type=int, default=8, help="answers of each turn (default: %(default)s)")
    parser.add_argument("--tokens", type=int, default=128, help="tokens of each answer (default: %(default)s)")
    arguments = parser.parse_args()
    streams = [int(number) for number in arguments.streams.split(",")]
    guests = sides.needed(sides.TARGET / "guests", "build them with `make guests`")
    with tempfile.TemporaryDirectory() as folder:

        def measure(side: str, number: int) -> dict[str, float]:
            port, config = sides.free_port(), Path(folder) / "infer.toml"
            config.write_text(configuration(port, arguments.model, side, guests), encoding="utf-8")
            serving = [arguments.infer, "serve", "--config", config, "--log", "warn"]
            found = {}
            with sides.server(serving, port, "/readyz"):
                turn(port, -1, 1, 1, 8)
                for at_once in streams:
                    found |= turn(port, number, at_once, arguments.answers, arguments.tokens)
            return found

        turns = {side: lambda number, side=side: measure(side, number) for side in GUARDS}
        costs = tuple(f"{one}: {cost} ms" for one in streams for cost in ("first", "gap p50", "gap p99"))
        title = f"{arguments.model}, {arguments.tokens} tokens, at once"
        comparison = sides.interleave(sides.Comparison(title, "open", costs), turns, arguments.rounds)
    return sides.show([comparison], arguments.output, {"infer": sides.version_of(arguments.infer)})


if __name__ == "__main__":
    sys.exit(sides.finish(main))
