"""Write tests/data/language/*.gguf, small decoders with random weights, and their golden.json.

The weights of a file come from a seed made of its name; ggml's quantiser makes the blocks. The
tokens are chosen so that the best logit leads by MIN_GAP at every position, and the experts that a
router chooses by MIN_ROUTER_LEAD: a wrong graph changes an argmax, rounding does not.

golden.json holds for each file its tokens, and for each case (phi3's long or short factors; its
window or none):
    argmax      best id at every position, by reference.py (numpy, f64, on the dequantised weights)
    last        logits at the last position, by reference.py
    gap         smallest lead of the best logit
    spread      standard deviation of the reference's logits, the unit of the figures below
    tolerance   maximum difference of an engine from `last`: `largest`, and `rms` (root mean square)
    llama_cpp   `argmax` and `last` by llama.cpp, its `context` in tokens, and its `largest` and
                `rms` difference from reference.py over all positions; null if llama.cpp cannot run
                the case

llama.cpp differs by at most 1e-5 with F32 weights, and by at most 0.005 of the spread with F16 (f16
activations, and a table of GELU in f16). With the other types its int8 activations cause an rms of
0.015 to 0.022 of the spread (0.03 with six layers and GELU), and at most 0.16 of it. The tolerances
are about twice that. Mistakes cost more (rms, of the
spread): a window of one more token 0.18, the other RoPE style 0.39 to 0.52, the other factors 0.37,
no factors 0.20, no attention factor 0.12, a RoPE base ten times as large 0.10 to 0.21, an epsilon
of 1e-6 0.07 to 0.13, no biases 0.88 or more; no norms of heads 0.25, a rotation in layers without
one 0.10, without granite's factor of scores 0.13, of embeddings 0.23, of residuals 0.33; SiLU for
GELU 0.23, no norms of results 0.43, no scaled embeddings 0.97, a window in all layers 0.14, the
global base in local layers 0.05 (against a tolerance of 0.002 with F16), no cap of scores 0.17, of
logits 0.29; no YaRN 0.27, linear scaling instead 0.36.

llama.cpp uses the long factors of a phi3 file if its context is longer than
rope.scaling.original_context_length, whatever the length of the prompt. It rounds the context up to
a multiple of 256 tokens. The attention factor applies in both cases. It ignores phi3's sliding
window (src/models/phi3.cpp sets it to 0), so that case has only reference.py;
`llama_cpp_without_window` is the difference between the two without the window.

    pip install -r tests/scripts/requirements-language.txt
    python tests/scripts/small_models.py                # write the files and golden.json
    python tests/scripts/small_models.py qwen3-f16      # write one file and its entry
    python tests/scripts/small_models.py --check        # compare; exit code 1 if they differ
"""

import argparse
import json
import sys
import zlib

import llamacpp
import numpy as np
import reference
from gguf import GGMLQuantizationType as Type
from reference import Case
from small_files import FOLDER, ORIGINAL_CONTEXT, VOCABULARY, write
from small_specs import SPECS, Spec

GOLDEN = FOLDER / "golden.json"
TOKENS = 24
MIN_GAP = 0.4
MIN_ROUTER_LEAD = 0.2  # of a chosen expert: int8 activations choose the same ones
TOLERANCES = {Type.F32: (0.001, 0.0002), Type.F16: (0.01, 0.002)}  # of the spread: maximum difference, rms
INT8_TOLERANCE = (0.25, 0.04)
ROUNDING = 0.005  # of a logit, between processors: llama.cpp's int8 kernels differ with the instruction set
F64_ROUNDING = 1e-4  # golden.json keeps five decimals


def gap(row: np.ndarray) -> float:
    """Returns the lead of the best logit."""
    second, first = np.sort(row)[-2:]
    return float(first - second)


def choose_tokens(spec: Spec, model: reference.Model) -> list[int]:
    """Returns tokens after each of which the best logit leads by MIN_GAP, in every case."""
    random = np.random.default_rng(zlib.crc32(spec.name.encode()) + 1)
    tokens: list[int] = []
    while len(tokens) < TOKENS:
        for candidate in random.permutation(VOCABULARY):
            attempt = [*tokens, int(candidate)]
            leads = [(gap(model.logits(attempt, case)[-1]), model.router_lead) for case in spec.cases]
            if all(best >= MIN_GAP and router >= MIN_ROUTER_LEAD for best, router in leads):
                tokens = attempt
                break
        else:
            raise ValueError(f"`{spec.name}`: no token leads by {MIN_GAP} at position {len(tokens)}")
    return tokens


def rounded(row: np.ndarray) -> list[float]:
    """Rounds to five decimals."""
    return [round(float(value), 5) for value in row]


def answer(spec: Spec, tokens: list[int]) -> dict:
    """Returns a file's entry in golden.json."""
    path = FOLDER / f"{spec.name}.gguf"
    model = reference.Model(path)
    cases = []
    for case in spec.cases:
        logits = model.logits(tokens, case)
        largest, rms = TOLERANCES.get(spec.kinds[""], INT8_TOLERANCE)
        entry = {
            "factors": ("long" if case.long_factors else "short") if spec.long_factors else None,
            "window": spec.window or None,
            "argmax": logits.argmax(-1).tolist(),
            "gap": round(min(gap(row) for row in logits), 5),
            "spread": round(float(logits.std()), 5),
            "tolerance": {
                "largest": round(float(logits.std()) * largest, 5),
                "rms": round(float(logits.std()) * rms, 5),
            },
            "last": rounded(logits[-1]),
        }
        cases.append(entry)
        if not spec.peer:
            entry["llama_cpp"] = None
            continue
        context = 2 * ORIGINAL_CONTEXT if case.long_factors else ORIGINAL_CONTEXT
        with llamacpp.Model(path, context) as peer:
            theirs = peer.append(tokens, every=True)
        has_window = spec.architecture != "phi3"
        ours = model.logits(tokens, Case(case.long_factors, has_window))
        entry["llama_cpp"] = {
            "context": context,
            "largest": round(float(np.abs(theirs - ours).max()), 5),
            "rms": round(float(np.sqrt(((theirs - ours) ** 2).mean())), 5),
            "argmax": theirs.argmax(-1).tolist(),
            "last": rounded(theirs[-1]),
        }
        if spec.window and not has_window:
            entry["llama_cpp_without_window"] = {
                key: entry["llama_cpp"][key] for key in ("context", "largest", "rms")
            }
            entry["llama_cpp"] = None
    return {"file": path.name, "architecture": spec.architecture, "tokens": tokens, "cases": cases}


def numbers(value: object) -> list[float]:
    """Returns every number of a JSON value, in order."""
    if isinstance(value, dict):
        return [each for inner in value.values() for each in numbers(inner)]
    if isinstance(value, list):
        return [each for inner in value for each in numbers(inner)]
    return [value] if isinstance(value, int | float) else []


def differences(stored: dict, now: dict) -> list[str]:
    """Returns the differences between two entries of a file that exceed rounding."""
    found = []
    for old, new in zip(stored["cases"], now["cases"], strict=True):
        where = f"`{stored['file']}`, factors {old['factors']}, window {old['window']}"
        for key, limit in [("argmax", 0), ("last", F64_ROUNDING), ("spread", F64_ROUNDING), ("llama_cpp", ROUNDING)]:
            worst = max((abs(a - b) for a, b in zip(numbers(old[key]), numbers(new[key]), strict=True)), default=0)
            if worst > limit:
                found.append(f"{where}: `{key}` differs by {worst:.5f}, expected at most {limit}")
    return found


def main() -> int:
    """Writes or compares the files. Returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="compare with golden.json instead of writing")
    parser.add_argument("names", nargs="*", help="files without their suffix (default: all)")
    arguments = parser.parse_args()
    check, names = arguments.check, arguments.names or [spec.name for spec in SPECS]
    if unknown := set(names) - {spec.name for spec in SPECS}:
        parser.error(f"no file is named {', '.join(sorted(unknown))}")
    stored = {}
    if check or arguments.names:
        stored = {entry["file"]: entry for entry in json.loads(GOLDEN.read_text())["files"]}
    entries, found = [], []
    FOLDER.mkdir(parents=True, exist_ok=True)
    for spec in SPECS:
        old = stored.get(f"{spec.name}.gguf")
        if spec.name not in names:
            entries += [old] if old else []
            continue
        if check:
            entries.append(answer(spec, old["tokens"]))
            found += differences(old, entries[-1])
        else:
            write(spec)
            entries.append(answer(spec, choose_tokens(spec, reference.Model(FOLDER / f"{spec.name}.gguf"))))
        for case in entries[-1]["cases"]:
            peer = case["llama_cpp"] or case.get("llama_cpp_without_window")
            if not peer:
                print(f"{spec.name:20} spread {case['spread']:.3f} gap {case['gap']:.3f}, not compared with llama.cpp")
                continue
            same = case["llama_cpp"] and case["llama_cpp"]["argmax"] == case["argmax"]
            print(
                f"{spec.name:20} factors {case['factors'] or '-':5} window {case['window'] or '-'!s:2} "
                f"spread {case['spread']:.3f} gap {case['gap']:.3f} llama.cpp differs by {peer['largest']:.5f} "
                f"({peer['largest'] / case['spread']:.4f} of the spread), "
                f"rms {peer['rms'] / case['spread']:.4f} of it, argmax {'equal' if same else same}"
            )
    if check:
        print("\n".join(found) or "golden.json agrees")
        return 1 if found else 0
    text = ",\n".join(json.dumps(entry, separators=(",", ":")) for entry in entries)
    GOLDEN.write_text(f'{{"files":[\n{text}\n]}}\n')
    return 0


if __name__ == "__main__":
    sys.exit(main())
