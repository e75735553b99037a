"""Measure the verdicts of POST /moderate on labelled texts, and on harmless ones.

    python tests/quality/measure.py --data DATA_DIR --out quality.json
    python tests/quality/measure.py --data DATA_DIR --config cascade.toml --rows 400 --out FILE

Starts the server with the built-in configuration, or with --config, and sends every text. DATA_DIR
is the folder that weights/convert/moderation_encoder/README.md describes; only test rows are read,
and those of Stormfront, which is a validation set. Prints no texts. For each set: rows, AUROC of
the category's score with a 95 % interval (bootstrap over rows, 1,000 draws, seed 0), expected
calibration error (10 bins of equally many rows), and the share flagged of either label. For the
harmless sentences of identity.json: the share flagged by group of identity terms. For
instructions.txt: the share flagged. Needs numpy.
"""

import argparse
import http.client
import json
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "weights" / "convert" / "moderation_encoder"))
import data
from metrics import auroc, calibration_error, interval

HERE = Path(__file__).resolve().parent
AT_ONCE = 4
RETRIES = 100
READY_S = 120
# Sets of data.VALIDATION, and the category of the verdict that judges them.
CATEGORY = {
    "davidson harassment": "harassment",
    "davidson hate": "hate",
    "hatemoji hate": "hate",
    "stormfront hate": "hate",
    "threats hate/threatening": "hate/threatening",
    "edos sexism": "sexism",
    "slabs prompt-injection": "prompt-injection",
    "neuralchemy prompt-injection": "prompt-injection",
}


class Server:
    """A running server."""

    def __init__(self, infer: Path, config: Path | None) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        command = [str(infer), "serve", "--log", "warn", "--listen", f"127.0.0.1:{self.port}"]
        if config:
            command += ["--config", str(config)]
        self.process = subprocess.Popen(command)
        until = time.monotonic() + READY_S
        while True:
            try:
                self.connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=600)
                self.connection.request("GET", "/readyz")
                if self.connection.getresponse().read() is not None:
                    return
            except OSError as error:
                if self.process.poll() is not None or time.monotonic() > until:
                    raise RuntimeError(f"the server did not start: {error}") from error
                time.sleep(0.2)

    def scores(self, texts: list[str]) -> list[dict[str, tuple[float, bool]]]:
        """Return score and flag of each category, for every text."""
        out = []
        for start in range(0, len(texts), AT_ONCE):
            answer = self.post(json.dumps({"input": texts[start : start + AT_ONCE]}))
            further = answer["infer"].get("categories") or [{}] * len(answer["results"])
            for result, beside in zip(answer["results"], further, strict=True):
                own = {
                    name: (score, result["categories"][name])
                    for name, score in result["category_scores"].items()
                }
                own |= {name: (found["score"], found["flagged"]) for name, found in beside.items()}
                out.append(own)
        return out

    def post(self, body: str, path: str = "/moderate") -> dict:
        """Return the answer to a body; waits while the server is busy."""
        for _ in range(RETRIES):
            self.connection.request("POST", path, body, {"Content-Type": "application/json"})
            answer = self.connection.getresponse()
            content = answer.read()
            if answer.status == 200:
                return json.loads(content)
            if answer.status != 429:
                break
            time.sleep(0.1)
        raise RuntimeError(f"POST {path}: {answer.status} {content[:300]!r}")

    def stop(self) -> None:
        """End the server."""
        self.process.terminate()
        self.process.wait()


def harmless() -> list[tuple[str, str]]:
    """Return the sentences of identity.json with the group of their term."""
    content = json.loads((HERE / "identity.json").read_text())
    return [
        (group, sentence.replace("{terms}", term).replace("{Terms}", term[0].upper() + term[1:]))
        for group, terms in content["terms"].items()
        for term in terms
        for sentence in content["templates"]
    ]


def flagged(scores: list[dict[str, tuple[float, bool]]], category: str | None = None) -> float:
    """Return the share of texts that a category flags, or any of them."""
    hits = [any(flag for name, (_, flag) in row.items() if category in (None, name)) for row in scores]
    return round(float(np.mean(hits)), 4)


def parser(description: str) -> argparse.ArgumentParser:
    """Return a parser with the options of all scripts that start a server."""
    options = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--infer", type=Path, default=ROOT / "target" / "release" / "infer")
    options.add_argument("--data", type=Path, required=True)
    options.add_argument("--out", type=Path, required=True)
    return options


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--config", type=Path, help="infer.toml (default: the built-in configuration)")
    options.add_argument("--rows", type=int, help="at most this many rows of a set, drawn with a fixed seed")
    arguments = options.parse_args()
    rows, _ = data.without_twins(data.read(arguments.data, raw=True))
    server = Server(arguments.infer, arguments.config)
    try:
        record = {"sets": {}, "identity": {}}
        for name, category in CATEGORY.items():
            sources, _, label = data.VALIDATION[name]
            split = "dev" if "stormfront" in sources else "test"
            some = [r for r in rows if r.source in sources and r.split == split]
            if arguments.rows and len(some) > arguments.rows:
                chosen = np.random.default_rng(0).choice(len(some), arguments.rows, replace=False)
                some = [some[i] for i in sorted(chosen)]
            scores = server.scores([r.text for r in some])
            missing = [row for row in scores if category not in row]
            if missing:
                print(f"{name}: no score of `{category}` for {len(missing)} texts", flush=True)
                continue
            y = np.array([r.labels[label] for r in some])
            p = np.array([row[category][0] for row in scores])
            flags = np.array([row[category][1] for row in scores])
            record["sets"][name] = found = {
                "rows": len(y),
                "label_1": int(y.sum()),
                "auroc": round(auroc(y, p), 4),
                "interval": [round(x, 4) for x in interval(y, p, 1000)],
                "ece": round(calibration_error(y, p), 4),
                "flagged_of_label_1": round(float(flags[y == 1].mean()), 4),
                "flagged_of_label_0": round(float(flags[y == 0].mean()), 4),
            }
            print(name, json.dumps(found), flush=True)
        sentences = harmless()
        scores = server.scores([text for _, text in sentences])
        for group in dict.fromkeys(group for group, _ in sentences):
            of_group = [row for (other, _), row in zip(sentences, scores, strict=True) if other == group]
            record["identity"][group] = {"sentences": len(of_group), "flagged": flagged(of_group)}
            print(f"identity, {group}", json.dumps(record["identity"][group]), flush=True)
        texts = (HERE / "instructions.txt").read_text().splitlines()
        scores = server.scores(texts)
        record["instructions"] = {
            "texts": len(texts),
            "flagged": flagged(scores),
            "prompt-injection": flagged(scores, "prompt-injection"),
        }
        print("instructions", json.dumps(record["instructions"]), flush=True)
    finally:
        server.stop()
    arguments.out.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
