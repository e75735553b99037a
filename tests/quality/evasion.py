"""Measure how many flagged texts stay flagged when they are written evasively.

The server at `--url` judges texts of label 1 as they are; those that it flags are rewritten by each
of the attacks of attacks.py (seeded, every word of at least three letters) and judged again. Texts
of label 0 show what the second reading costs: those that `--url` flags, and `--without`, a server
whose card has `evasion = "keep"`, does not. No text is printed.

    python evasion.py --url http://127.0.0.1:8080 --without http://127.0.0.1:8081 \\
        --split dev --rows 300 edos=DATA/edos.csv hatemoji=DATA/hatemoji_build.csv \\
        davidson=DATA/davidson_labeled_data.csv

A set is a CSV file with the columns text, label and split, or Davidson's file, whose rows below
4,000 are the test split, and of the others those with a number that ten divides the dev split.
"""

import argparse
import csv
import json
import random
import urllib.request
from pathlib import Path

from attacks import EXTRA, NAMES, attacked

DAVIDSON_TEST_ROWS = 4000
DAVIDSON_DEV_EVERY = 10
TEXTS_PER_REQUEST = 16


def rows(path: Path, split: str) -> list[tuple[str, int]]:
    """Return the texts of a split with their labels."""
    with open(path, newline="", encoding="utf-8") as file:
        found = list(csv.DictReader(file))
    if "tweet" in found[0]:
        numbered = enumerate(found)
        is_test = split == "test"
        chosen = [
            row
            for number, row in numbered
            if (number < DAVIDSON_TEST_ROWS) == is_test
            and (is_test or number % DAVIDSON_DEV_EVERY == 0)
        ]
        return [(row["tweet"], int(row["class"] != "2")) for row in chosen]
    names = {"test": ["test"], "dev": ["dev", "validation"]}[split]
    return [(row["text"], int(row["label"])) for row in found if row["split"] in names]


def judge(url: str, texts: list[str]) -> list[bool]:
    """Return whether the server flags each text."""
    flagged = []
    for start in range(0, len(texts), TEXTS_PER_REQUEST):
        body = json.dumps({"input": texts[start : start + TEXTS_PER_REQUEST]}).encode()
        request = urllib.request.Request(
            f"{url}/moderate", body, {"content-type": "application/json"}
        )
        with urllib.request.urlopen(request) as response:
            flagged += [result["flagged"] for result in json.load(response)["results"]]
    return flagged


def share(values: list[bool]) -> str:
    return f"{100 * sum(values) / max(1, len(values)):6.2f} %"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("sets", nargs="+", metavar="NAME=FILE")
    parser.add_argument("--url", required=True, help="server that undoes evasive spellings")
    parser.add_argument("--without", help="the same server without")
    parser.add_argument("--split", choices=["dev", "test"], default="dev")
    parser.add_argument("--rows", type=int, default=300, help="texts of label 1 of each set")
    parser.add_argument("--clean-rows", type=int, default=10_000, help="texts of label 0, the same")
    parser.add_argument("--share", type=float, default=1.0, help="share of the words rewritten")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only-clean", action="store_true", help="leave out the attacks")
    arguments = parser.parse_args()
    source = random.Random(arguments.seed)
    flagged, clean = [], {}
    for argument in arguments.sets:
        name, path = argument.split("=", 1)
        found = rows(Path(path), arguments.split)
        source.shuffle(found)
        positive = [text for text, label in found if label][: arguments.rows]
        judged = zip(positive, judge(arguments.url, positive), strict=True)
        kept = [text for text, is_flagged in judged if is_flagged]
        clean[name] = [text for text, label in found if not label][: arguments.clean_rows]
        print(f"{name}: {len(kept)} of {len(positive)} texts of label 1 are flagged", flush=True)
        flagged += kept
    servers = [arguments.url] + ([arguments.without] if arguments.without else [])
    for attack in [] if arguments.only_clean else [*NAMES, *EXTRA]:
        texts = [attacked(text, attack, arguments.seed, arguments.share) for text in flagged]
        results = [share(judge(url, texts)) for url in servers]
        beside = " (not one of the twenty)" if attack in EXTRA else ""
        print(f"{attack:32} stay flagged {'; without '.join(results)}{beside}", flush=True)
    for name, texts in clean.items():
        with_it = judge(arguments.url, texts)
        line = f"{name}: {len(texts)} texts of label 0, flagged {share(with_it)}"
        if arguments.without:
            without = judge(arguments.without, texts)
            newly = [one and not other for one, other in zip(with_it, without, strict=True)]
            line += f", newly {share(newly)}"
        print(line, flush=True)


if __name__ == "__main__":
    main()
