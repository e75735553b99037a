"""Write the scores of a running server for labelled texts, without the texts.

The tests of host/train resample them. The data are the dev split of EDOS (SemEval 2023 task 10,
CC0-1.0), as a CSV file with the columns `text`, `label` and `split`, which is not part of this
repository. A score is a pair: the rounded log-odds of `harassment`, in hundredths, and the label.

    infer serve &
    python tests/scripts/score_distribution.py edos.csv > host/train/src/scores.json
"""

import argparse
import csv
import json
import math
import sys
import urllib.request

BATCH = 16


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("data")
    parser.add_argument("--server", default="http://127.0.0.1:8080")
    arguments = parser.parse_args()
    with open(arguments.data, encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["split"] not in ("train", "test")]
    scores = []
    for start in range(0, len(rows), BATCH):
        batch = rows[start : start + BATCH]
        body = json.dumps({"input": [row["text"] for row in batch]}).encode()
        request = urllib.request.Request(
            f"{arguments.server}/moderate", body, {"content-type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            results = json.load(answer)["results"]
        for row, result in zip(batch, results, strict=True):
            score = min(max(result["category_scores"]["harassment"], 1e-6), 1 - 1e-6)
            scores.append([round(100 * math.log(score / (1 - score))), int(row["label"])])
    json.dump(scores, sys.stdout, separators=(",", ":"))
    sys.stdout.write("\n")


if __name__ == "__main__":
    main()
