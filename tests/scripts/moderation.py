"""Measure POST /moderate on labelled tweets with a classifier, a language model, and a cascade.

The data are the labelled tweets of Davidson et al. 2017, "Automated Hate Speech Detection and the
Problem of Offensive Language" (labeled_data.csv, not part of this repository). The first 8,000 rows
are left out, because thresholds and prompts were tuned on them. From the rest, 200 rows of class 0
(hate) or 1 (offensive) and 200 of class 2 (neither) are drawn with a fixed seed. A text's score is
the largest of its harassment and hate scores.

For each mode the script writes a configuration, starts the server, sends the texts one at a time,
and stops the server:

    python tests/scripts/moderation.py labeled_data.csv --output moderation.json
    python tests/scripts/moderation.py labeled_data.csv --write-only DIR   # only the configurations

Prints for each mode the AUROC with a 95 % interval (bootstrap over the texts), the share of
resamples in which it is the best mode, latencies, the deciding tiers, and the AUROC of the
classifier on the texts that each tier decided. Needs only Python's standard library. The exit code
is 2 if the server or the data cannot be used.
"""

import argparse
import collections
import csv
import itertools
import json
import random
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

from auroc import CLEAN, auroc

SKIP = 8000
EACH = 200
SEED = 20170315
RESAMPLES = 2000
READY_S = 120
TIMEOUT_S = 120
FAMILY = ["harassment", "harassment/threatening", "hate", "hate/threatening"]
MODES = {
    "classifier": {"text": "classifier"},
    "language": {"language": "language"},
    "cascade": {"text": "classifier", "language": "language"},
}


def configuration(mode: str, port: int, arguments: argparse.Namespace) -> str:
    """Returns the infer.toml of a mode."""
    sources = {"classifier": "builtin:toxic-bilstm", "language": arguments.language_model}
    lines = ["[server]", f'listen = "127.0.0.1:{port}"', f"deadline_ms = {TIMEOUT_S * 1000}", ""]
    for model in MODES[mode].values():
        lines += [f"[models.{model}]", f"source = {json.dumps(sources[model])}", ""]
    uses = ", ".join(f'{guest} = "{model}"' for guest, model in MODES[mode].items())
    lines += ["[components.moderate]", 'source = "builtin:moderate"', 'route = "/moderate"', f"models = {{ {uses} }}"]
    lines += [f"limits = {{ compute_ms = {TIMEOUT_S * 1000} }}", "", "[components.moderate.settings]"]
    lines += [f"{json.dumps(key)} = {value}" for key, value in arguments.setting]
    return "\n".join(lines) + "\n"


def draw(path: Path) -> tuple[list[str], list[bool]]:
    """Returns the balanced texts, and for each text True if it is offensive or hateful."""
    with open(path, encoding="utf-8", newline="") as file:
        rows = list(itertools.islice(csv.DictReader(file), SKIP, None))
    if not rows or not {"tweet", "class"} <= rows[0].keys():
        raise ValueError(f"`{path}`: expected columns `tweet` and `class`, and more than {SKIP} rows")
    picker = random.Random(SEED)
    drawn = []
    for clean in (False, True):
        of_class = [row["tweet"] for row in rows if (row["class"] == CLEAN) == clean]
        drawn += [(text, not clean) for text in picker.sample(of_class, EACH)]
    picker.shuffle(drawn)
    texts, offensive = zip(*drawn, strict=True)
    return list(texts), list(offensive)


def post(url: str, text: str) -> tuple[dict, float]:
    """Returns the response to one text, and its latency in milliseconds."""
    body = json.dumps({"input": text}).encode()
    request = urllib.request.Request(f"{url}/moderate", body, {"Content-Type": "application/json"})
    began = time.perf_counter()
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as response:
            answer = json.load(response)
    except urllib.error.HTTPError as error:
        raise ValueError(f"POST {url}/moderate: {error.code} {error.read().decode(errors='replace')}") from error
    return answer, (time.perf_counter() - began) * 1000


def judge(mode: str, texts: list[str], arguments: argparse.Namespace) -> list[dict]:
    """Returns score, tier, latency and language-model tokens of every text in a mode."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"{mode}.toml"
        path.write_text(configuration(mode, port, arguments))
        command = [str(arguments.infer), "serve", "--config", str(path), "--log", "warn"]
        server = subprocess.Popen(command)
        try:
            url = f"http://127.0.0.1:{port}"
            await_ready(url, server)
            post(url, "warm up")
            rows = []
            for number, text in enumerate(texts, 1):
                answer, milliseconds = post(url, text)
                rows.append(row_of(mode, answer, milliseconds))
                if sys.stderr.isatty():
                    print(f"\r{mode} {number}/{len(texts)}", end="", file=sys.stderr)
            return rows
        finally:
            server.terminate()
            server.wait()


def await_ready(url: str, server: subprocess.Popen) -> None:
    """Waits until the server answers /readyz."""
    for _ in range(READY_S * 5):
        if server.poll() is not None:
            raise ValueError(f"the server exited with {server.returncode} before it was ready")
        try:
            with urllib.request.urlopen(f"{url}/readyz", timeout=5):
                return
        except OSError:
            time.sleep(0.2)
    raise ValueError(f"the server was not ready within {READY_S} s")


def row_of(mode: str, answer: dict, milliseconds: float) -> dict:
    """Returns the results of one response."""
    scores = answer["results"][0]["category_scores"]
    facts = answer["infer"]
    return {
        "score": max(scores[category] for category in FAMILY),
        "tier": answer["results"][0].get("tier", "none"),
        "milliseconds": round(milliseconds, 2),
        "tokens": facts.get("tokens"),
        "degraded": [gap["reason"] for gap in facts["degraded"] if "text" in gap["input_types"]],
    }


def resampled(judged: dict[str, list[dict]], offensive: list[bool]) -> dict[str, list[float]]:
    """Returns the AUROCs of every mode over the same bootstrap resamples of the texts."""
    picker = random.Random(SEED)
    areas: dict[str, list[float]] = {mode: [] for mode in judged}
    while len(next(iter(areas.values()))) < RESAMPLES:
        picked = picker.choices(range(len(offensive)), k=len(offensive))
        flags = [offensive[index] for index in picked]
        if any(flags) and not all(flags):
            for mode, rows in judged.items():
                areas[mode].append(auroc([rows[index]["score"] for index in picked], flags))
    return areas


def report(judged: dict[str, list[dict]], offensive: list[bool]) -> list[dict]:
    """Prints and returns the results of every mode."""
    areas = resampled(judged, offensive)
    figures = []
    for mode, rows in judged.items():
        low, *_, high = statistics.quantiles(areas[mode], n=40)
        best = sum(area == max(several) for area, several in zip(areas[mode], zip(*areas.values()))) / RESAMPLES
        times = statistics.quantiles([row["milliseconds"] for row in rows], n=100)
        tiers = collections.Counter(row["tier"] for row in rows)
        used = [row["tokens"] for row in rows if row["tokens"]]
        computed = [tokens["prompt_tokens"] - tokens["cached_tokens"] for tokens in used]
        figures.append(
            {
                "mode": mode,
                "auroc": round(auroc([row["score"] for row in rows], offensive), 4),
                "interval": [round(low, 4), round(high, 4)],
                "best_in": round(best, 3),
                "milliseconds": {"p50": times[49], "p90": times[89], "p99": times[98]},
                "tiers": dict(tiers),
                "prompt_tokens": statistics.median(tokens["prompt_tokens"] for tokens in used) if used else None,
                "computed_tokens": statistics.median(computed) if used else None,
                "degraded": sum(bool(row["degraded"]) for row in rows),
            }
        )
        print(
            f"{mode:10} AUROC {figures[-1]['auroc']:.4f} ({low:.4f} to {high:.4f}), best in {best:.0%} of resamples; "
            f"ms p50 {times[49]:.1f} p90 {times[89]:.1f} p99 {times[98]:.1f}; "
            f"decided by {', '.join(f'{tier} {count}' for tier, count in tiers.most_common())}"
        )
        if used:
            print(
                f"{'':10} prompt tokens, median: {figures[-1]['prompt_tokens']:.0f}, of which computed without the cache "
                f"{figures[-1]['computed_tokens']:.0f}"
            )
        if mode == "cascade" and "classifier" in judged:
            for tier in tiers:
                at = [index for index, row in enumerate(rows) if row["tier"] == tier]
                flags = [offensive[index] for index in at]
                if any(flags) and not all(flags):
                    first = auroc([judged["classifier"][index]["score"] for index in at], flags)
                    both = auroc([rows[index]["score"] for index in at], flags)
                    print(f"{'':10} where {tier} decided: classifier {first:.4f}, cascade {both:.4f}, n = {len(at)}")
    return figures


def setting(text: str) -> tuple[str, str]:
    """Parses `KEY=VALUE`, the value in TOML."""
    key, equals, value = text.partition("=")
    if not equals:
        raise argparse.ArgumentTypeError(f"`{text}`: expected KEY=VALUE, the value in TOML")
    return key, value


def parsed_arguments() -> argparse.Namespace:
    """Parses the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("csv", type=Path, help="Davidson's labeled_data.csv")
    parser.add_argument("--infer", type=Path, default=Path("target/release/infer"), help="default: %(default)s")
    parser.add_argument("--language-model", default="builtin:qwen2.5-1.5b", help="source of the language model (default: %(default)s)")
    parser.add_argument("--modes", nargs="+", choices=MODES, default=list(MODES), help="default: all")
    parser.add_argument(
        "--setting", type=setting, action="append", default=[], metavar="KEY=VALUE", help="a setting of the moderate guest"
    )
    parser.add_argument("--rows", type=int, default=2 * EACH, help="number of texts (default: %(default)s)")
    parser.add_argument("--output", type=Path, help="JSON file for the results of each mode and each text")
    parser.add_argument("--write-only", type=Path, metavar="DIR", help="write the configurations into DIR, and exit")
    return parser.parse_args()


def main() -> int:
    """Measures every mode and prints the results. Returns the exit code."""
    arguments = parsed_arguments()
    try:
        if arguments.write_only:
            for mode in arguments.modes:
                (arguments.write_only / f"{mode}.toml").write_text(configuration(mode, 8080, arguments))
            return 0
        texts, offensive = (part[: arguments.rows] for part in draw(arguments.csv))
        judged = {mode: judge(mode, texts, arguments) for mode in arguments.modes}
        figures = report(judged, offensive)
    except (OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return 2
    if arguments.output:
        content = {"seed": SEED, "modes": figures, "offensive": offensive, "rows": judged}
        arguments.output.write_text(json.dumps(content, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
