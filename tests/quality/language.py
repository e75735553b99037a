"""Save the scores of the language model and of the classifiers, text by text.

    python tests/quality/language.py --data DATA_DIR --policy harassment=FILE --policy hate=FILE \\
        --sample davidson:test:1000:harassment --sample hatemoji:dev:300:hate --out scores.jsonl

Starts a server with one component for each policy, whose only model is the language model, and one
for each classifier. Each policy is a file of settings, such as those in `policies`. A sample is
`SET:SPLIT:ROWS:POLICY`: that many rows of the set, in an order drawn with seed 0, so a larger
sample has the rows of a smaller one. Each line of the output is

    {"policy": .., "set": .., "split": .., "row": .., "labels": {..}, "language": log-odds,
     "classifiers": {"encoder": {category: score}, "words": {..}}}

without the text; `row` counts the rows of the set and split that data.py keeps. Rows that stand in
the output are not asked again, so an interrupted run goes on. `combination.py` reads the output.
"""

import json
import tempfile
from pathlib import Path

import numpy as np

from measure import Server, data, parser
from metrics import log_odds

AT_ONCE = 8
DEADLINE_MS = 600_000
CLASSIFIERS = {"encoder": "moderation-encoder", "words": "toxic-bilstm"}


def configuration(policies: dict[str, Path], model: str) -> str:
    """Return an infer.toml with a component for each policy and each classifier."""
    lines = ["[server]", f"deadline_ms = {DEADLINE_MS}"]
    for name in CLASSIFIERS.values():
        lines += [f"[models.{name}]", f'source = "builtin:{name}"']
    lines += ["[models.language]", f'source = "builtin:{model}"']
    for name, builtin in CLASSIFIERS.items():
        lines += [f"[components.{name}]", 'source = "builtin:moderate"', f'models = {{ text = "{builtin}" }}']
        lines += [f'route = "/{name}"']
    for name, file in policies.items():
        lines += [
            f"[components.{name}]",
            'source = "builtin:moderate"',
            f'route = "/{name}"',
            'models = { language = "language" }',
            f"limits = {{ compute_ms = {DEADLINE_MS} }}",
            f"[components.{name}.settings]",
            file.read_text(),
        ]
    return "\n".join(lines) + "\n"


def sample(rows: list[data.Row], source: str, split: str, count: int) -> list[tuple[int, data.Row]]:
    """Return the first rows of a set and split, in an order drawn with seed 0."""
    some = [r for r in rows if (r.source, r.split) == (source, split)]
    order = np.random.default_rng(0).permutation(len(some))[:count]
    return [(int(i), some[i]) for i in order]


def scores(server: Server, component: str, texts: list[str]) -> list[dict[str, float]]:
    """Return the score of each category by a component, for each text."""
    answer = server.post(json.dumps({"input": texts}), f"/{component}")
    found = [dict(result["category_scores"]) for result in answer["results"]]
    for one, further in zip(found, answer["infer"].get("categories") or [], strict=False):
        one |= {name: score["score"] for name, score in further.items()}
    gaps = {gap["category"] for gap in answer["infer"]["degraded"]}
    return [{k: v for k, v in one.items() if v or k not in gaps} for one in found]


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--language-model", default="qwen2.5-1.5b")
    options.add_argument("--policy", action="append", required=True, help="NAME=FILE")
    options.add_argument("--sample", action="append", required=True, help="SET:SPLIT:ROWS:POLICY")
    arguments = options.parse_args()
    policies = {name: Path(file) for name, file in (own.split("=", 1) for own in arguments.policy)}
    rows, _ = data.without_twins(data.read(arguments.data, raw=True))
    done = set()
    if arguments.out.exists():
        for line in arguments.out.read_text().splitlines():
            own = json.loads(line)
            done.add((own["policy"], own["set"], own["split"], own["row"]))
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "infer.toml"
        config.write_text(configuration(policies, arguments.language_model))
        server = Server(arguments.infer, config)
        try:
            for one in arguments.sample:
                source, split, count, policy = one.split(":")
                category = policies[policy].read_text().split('.categories" = "')[1].split('"')[0]
                todo = [
                    (number, row)
                    for number, row in sample(rows, source, split, int(count))
                    if (policy, source, split, number) not in done
                ]
                for start in range(0, len(todo), AT_ONCE):
                    some = todo[start : start + AT_ONCE]
                    texts = [row.text for _, row in some]
                    language = scores(server, policy, texts)
                    others = {name: scores(server, name, texts) for name in CLASSIFIERS}
                    with arguments.out.open("a") as file:
                        for i, (number, row) in enumerate(some):
                            record = {
                                "policy": policy,
                                "set": source,
                                "split": split,
                                "row": number,
                                "labels": row.labels,
                                "language": round(float(log_odds(language[i][category.split(",")[0]])), 4),
                                "classifiers": {name: found[i] for name, found in others.items()},
                            }
                            file.write(json.dumps(record) + "\n")
                print(one, len(todo), flush=True)
        finally:
            server.stop()


if __name__ == "__main__":
    main()
