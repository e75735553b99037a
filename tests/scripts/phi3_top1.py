"""Write a JSON file of what llama.cpp takes as the next token after twenty prompts, on any GGUF file.

For a full-size Phi-3 Mini, real or of `infer dummy phi3`, too large to be kept: run this on the file at hand
and compare an engine with it. Prompts are 32 to 64 ids drawn from a seed; a draw counts when the best logit leads by
--gap, since where two are level arithmetic decides and nothing is learnt. The JSON holds per prompt its ids, the best
five ids with their logits, and how many draws were passed over. With --exact N the first N prompts also run through
reference.py, minutes each: `int8_error` is how far llama.cpp's int8 activations carry its logits from f64's (the root
of the mean square over the vocabulary; two engines of that error may flip a lead of up to some four times it).

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
DRAWS = 400
BEST = 5


def main() -> int:
    """Run and write; the process's exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path, help="the GGUF file")
    parser.add_argument("output", type=Path, help="the JSON file to write")
    parser.add_argument("--gap", type=float, default=0.3, help="least lead of the best logit (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="of the prompts (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="threads (default: %(default)s)")
    parser.add_argument("--exact", type=int, default=0, help="prompts to run in f64 as well (default: %(default)s)")
    arguments = parser.parse_args()
    random = np.random.default_rng(arguments.seed)
    kept, rows, passed_over = [], [], 0
    with llamacpp.Model(arguments.file, 256, arguments.threads) as model:
        while len(kept) < PROMPTS and len(kept) + passed_over < DRAWS:
            length = int(random.integers(LENGTHS[0], LENGTHS[1] + 1))
            tokens = [int(token) for token in random.integers(3, min(model.size, 32000), length)]
            model.reset()
            row = model.append(tokens)[0]
            top = np.argsort(-row, kind="stable")[:BEST]
            if row[top[0]] - row[top[1]] < arguments.gap:
                passed_over += 1
                continue
            rows.append(row)
            kept.append({"tokens": tokens, "best": [[int(token), round(float(row[token]), 4)] for token in top]})
            print(f"{len(kept):2} {length} ids, best {top[0]}, leads by {row[top[0]] - row[top[1]]:.3f}", flush=True)
    if len(kept) < PROMPTS:
        print(f"`{arguments.file}`: only {len(kept)} of {DRAWS} prompts lead by {arguments.gap}", file=sys.stderr)
        return 1
    exact = reference.Model(arguments.file) if arguments.exact else None
    errors = []
    for entry, theirs in zip(kept[: arguments.exact], rows, strict=False):
        row = exact.logits(entry["tokens"], reference.Case(window=False), first=-1)[0]
        errors.append(round(float(np.sqrt(((row - theirs) ** 2).mean())), 4))
        print(f"f64: best {row.argmax()}, llama.cpp's {theirs.argmax()}; rms apart {errors[-1]}", flush=True)
    lines = ",\n".join(json.dumps(entry, separators=(",", ":")) for entry in kept)
    head = {"file": arguments.file.name, "bytes": arguments.file.stat().st_size, "gap": arguments.gap}
    head |= {"passed_over": passed_over, "int8_error": errors}
    arguments.output.write_text(f'{json.dumps(head)[:-1]}, "prompts": [\n{lines}\n]}}\n')
    return 0


if __name__ == "__main__":
    sys.exit(main())
