"""Write a JSON file of llama.cpp's next token after twenty prompts, for any GGUF file.

It serves to check an engine on a full-size Phi-3 Mini, real or from `infer dummy phi3`, which is
too large for the repository. Prompts are 32 to 64 random ids from a seed. A prompt is skipped
unless its best logit leads by --gap, because a near-tie is decided by rounding. The JSON holds for
each prompt its ids and the five best ids with their logits, and the number of skipped prompts
(`passed_over`). With --exact N, reference.py also runs the first N prompts, each for minutes.
`int8_error` is then the difference between the logits of llama.cpp, with int8 activations, and
those in f64: the root mean square over the vocabulary. Two engines with that error can swap two
tokens whose logits differ by up to four times as much.

    pip install -r tests/scripts/requirements-language.txt
    python tests/scripts/phi3_top1.py phi3-q4_k_m.gguf phi3-q4_k_m.top1.json
"""

import argparse
import json
import os
import sys
from pathlib import Path

import llamacpp
import numpy as np
import reference

PROMPTS = 20
LENGTHS = (32, 64)
DRAWS = 1000
BEST = 5


def main() -> int:
    """Runs the prompts and writes the file. Returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path, help="the GGUF file")
    parser.add_argument("output", type=Path, help="the JSON file to write")
    parser.add_argument("--gap", type=float, default=0.6, help="minimum lead of the best logit (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="seed of the prompts (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="threads (default: %(default)s)")
    parser.add_argument("--exact", type=int, default=0, help="number of prompts to run in f64 as well (default: %(default)s)")
    arguments = parser.parse_args()
    random = np.random.default_rng(arguments.seed)
    accepted, rows, passed_over = [], [], 0
    with llamacpp.Model(arguments.file, 256, arguments.threads) as model:
        while len(accepted) < PROMPTS and len(accepted) + passed_over < DRAWS:
            length = int(random.integers(LENGTHS[0], LENGTHS[1] + 1))
            tokens = [int(token) for token in random.integers(3, min(model.size, 32000), length)]
            model.reset()
            row = model.append(tokens)[0]
            top = np.argsort(-row, kind="stable")[:BEST]
            if row[top[0]] - row[top[1]] < arguments.gap:
                passed_over += 1
                continue
            rows.append(row)
            accepted.append({"tokens": tokens, "best": [[int(token), round(float(row[token]), 4)] for token in top]})
            print(f"{len(accepted):2} {length} ids, best {top[0]}, leads by {row[top[0]] - row[top[1]]:.3f}", flush=True)
    if len(accepted) < PROMPTS:
        print(f"`{arguments.file}`: only {len(accepted)} of {DRAWS} prompts lead by {arguments.gap}", file=sys.stderr)
        return 1
    exact = reference.Model(arguments.file) if arguments.exact else None
    errors = []
    for entry, theirs in zip(accepted[: arguments.exact], rows, strict=False):
        row = exact.logits(entry["tokens"], reference.Case(window=False), first=-1)[0]
        errors.append(round(float(np.sqrt(((row - theirs) ** 2).mean())), 4))
        print(f"f64: best {row.argmax()}, llama.cpp's {theirs.argmax()}; rms difference {errors[-1]}", flush=True)
    lines = ",\n".join(json.dumps(entry, separators=(",", ":")) for entry in accepted)
    head = {"file": arguments.file.name, "bytes": arguments.file.stat().st_size, "gap": arguments.gap}
    head |= {"passed_over": passed_over, "int8_error": errors}
    arguments.output.write_text(f'{json.dumps(head)[:-1]}, "prompts": [\n{lines}\n]}}\n')
    return 0


if __name__ == "__main__":
    sys.exit(main())
