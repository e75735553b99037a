"""Measure how well POST /moderate of a running server separates offensive tweets from clean ones.

The data are the labelled tweets of Davidson et al. 2017, "Automated Hate Speech Detection and the
Problem of Offensive Language" (labeled_data.csv, not part of this repository). The shipped text
model was not trained on them. Class 2 is clean; classes 0 (hate) and 1 (offensive) should score
high. A text's score is the largest of its category scores. Needs only Python's standard library.

    infer serve &
    python tests/scripts/auroc.py labeled_data.csv --rows 4000 --min 0.88

Prints the AUROC and the rate. The exit code is 1 if the AUROC is below --min, and 2 if the server
or the data cannot be read.
"""

import argparse
import csv
import itertools
import json
import sys
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

CLEAN = "2"
TIMEOUT_S = 60
RETRIES = 100


def read_tweets(path: Path, skip: int, rows: int) -> tuple[list[str], list[bool]]:
    """Returns the texts, and for each text True if it is offensive or hateful."""
    with open(path, encoding="utf-8", newline="") as file:
        selected = list(itertools.islice(csv.DictReader(file), skip, skip + rows))
    if len(selected) < rows:
        raise ValueError(f"`{path}`: expected {skip + rows} rows, found {skip + len(selected)}")
    if not {"tweet", "class"} <= selected[0].keys():
        raise ValueError(f"`{path}`: expected the columns `tweet` and `class`, found {', '.join(selected[0])}")
    return [row["tweet"] for row in selected], [row["class"] != CLEAN for row in selected]


def moderate(url: str, texts: list[str]) -> list[float]:
    """Returns the largest category score of each text, in one request.

    Retries a 429 after the seconds of its `Retry-After`.
    """
    request = urllib.request.Request(
        f"{url}/moderate", json.dumps({"input": texts}).encode(), {"Content-Type": "application/json"}
    )
    for attempt in range(RETRIES):
        try:
            with urllib.request.urlopen(request, timeout=TIMEOUT_S) as response:
                results = json.load(response)["results"]
            break
        except urllib.error.HTTPError as error:
            if error.code != 429 or attempt + 1 == RETRIES:
                raise ValueError(
                    f"POST {url}/moderate: {error.code} {error.read().decode(errors='replace')}"
                ) from error
            time.sleep(float(error.headers.get("Retry-After", 1)))
    if len(results) != len(texts):
        raise ValueError(f"POST {url}/moderate: expected {len(texts)} results, found {len(results)}")
    return [max(result["category_scores"].values()) for result in results]


def auroc(scores: list[float], positive: list[bool]) -> float:
    """Returns the area under the ROC curve, from mid-ranks (Mann-Whitney); ties count half."""
    positives = sum(positive)
    negatives = len(positive) - positives
    if not positives or not negatives:
        raise ValueError(f"expected both classes, found {positives} positive and {negatives} negative rows")
    ranks_of_positives = 0.0
    below = 0
    for _score, tied in itertools.groupby(sorted(zip(scores, positive)), key=lambda pair: pair[0]):
        flags = [flag for _, flag in tied]
        ranks_of_positives += sum(flags) * (below + (len(flags) + 1) / 2)
        below += len(flags)
    return (ranks_of_positives - positives * (positives + 1) / 2) / (positives * negatives)


def parsed_arguments() -> argparse.Namespace:
    """Parses the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("csv", type=Path, help="Davidson's labeled_data.csv")
    parser.add_argument(
        "--url", default="http://127.0.0.1:8080", help="address of the server (default: %(default)s)"
    )
    parser.add_argument("--rows", type=int, default=4000, help="number of rows (default: %(default)s)")
    parser.add_argument("--skip", type=int, default=0, help="number of rows to skip first (default: %(default)s)")
    parser.add_argument("--batch", type=int, default=32, help="texts per request (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=4, help="concurrent requests (default: %(default)s)")
    parser.add_argument("--min", type=float, default=0.0, help="fail below this AUROC (default: %(default)s)")
    return parser.parse_args()


def main() -> int:
    """Sends the tweets and prints the results. Returns the exit code."""
    arguments = parsed_arguments()
    try:
        texts, offensive = read_tweets(arguments.csv, arguments.skip, arguments.rows)
        batches = [texts[start : start + arguments.batch] for start in range(0, len(texts), arguments.batch)]
        began = time.perf_counter()
        with ThreadPoolExecutor(arguments.threads) as pool:
            answers = list(pool.map(lambda batch: moderate(arguments.url, batch), batches))
        seconds = time.perf_counter() - began
        area = auroc(list(itertools.chain.from_iterable(answers)), offensive)
    except (OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return 2
    print(
        f"AUROC {area:.4f} on {len(texts)} tweets, {sum(offensive)} of them offensive; "
        f"{len(batches) / seconds:.1f} requests/s, {len(texts) / seconds:.1f} texts/s"
    )
    if area < arguments.min:
        print(f"AUROC {area:.4f} is below the minimum of {arguments.min:g}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
