"""Compare `infer` with OpenVINO GenAI and onnxruntime-genai on eight layers of a Phi-3 Mini.

    python benches/peers/genai.py
    python benches/peers/genai.py --type q4_k_m --peers openvino-int8-128 --rounds 5

The weights are random: layers 2 to 9 of `infer dummy phi3`, cut out of its file, with its
embeddings and output. `genai/models.py` writes them again for each peer, in symmetric int4 with
groups of 32 or 128 columns: with --type q4_0, the default, and 32 the values are the same, and the
script first checks that the log-odds of a few words after a few prompts agree.

All sides compute on the same threads, greedily, random prompts of which nothing is cached: `infer
bench`'s sizes of prompts, then 32 single tokens after a prompt of one. onnxruntime rounds
activations to int8 (accuracy level 4). OpenVINO does so by its default,
DYNAMIC_QUANTIZATION_GROUP_SIZE 32, but only if the others are f32; on processors with bf16 its
default is products in bf16. `openvino-32` has all defaults, the sides with `int8` have
INFERENCE_PRECISION_HINT f32, those with `pa` paged attention. Keys and values have each program's
default type: u8 in OpenVINO, f32 in onnxruntime, f16 in `infer`.
"""

import argparse
import json
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import llamacpp
import sides

HERE = Path(__file__).with_name("genai")
FOLDER = sides.TARGET / "peers" / "genai-models"
TYPES = ["q4_0", "q4_k_m"]
SHARED = "q4_0"  # the type of which the peers' models are made
SDPA = ["ATTENTION_BACKEND=SDPA"]
# Name: kind, arguments of models.py after the folder, properties.
PEERS = {
    "openvino-32": ("openvino", ["32"], SDPA),
    "openvino-int8-32": ("openvino", ["32"], [*SDPA, "INFERENCE_PRECISION_HINT=f32"]),
    "openvino-int8-128": ("openvino", ["128"], [*SDPA, "INFERENCE_PRECISION_HINT=f32"]),
    "openvino-pa-int8-128": ("openvino", ["128"], ["ATTENTION_BACKEND=PA", "INFERENCE_PRECISION_HINT=f32"]),
    "onnxruntime-32": ("onnxruntime", ["32", "8"], []),
    "onnxruntime-128": ("onnxruntime", ["128", "4"], []),
}
# Words that are one token each after a space in Phi-3's vocabulary. The largest difference of the
# log-odds is that of llamacpp.py, as the peers round activations and the output differently too.
PROMPTS = [
    "the river through the old town was very small before this house",
    "they will open the door for people from the other side of the water",
    "this is not the same place that you have seen last year",
]
CHOICES = ["yes", "no", "house", "water", "people", "time"]
FIRST_TOKEN = 1  # begins each prompt


def write(python: Path, infer: Path, kind: str) -> Path:
    """Returns the GGUF file of eight layers, written if it is missing."""
    part = FOLDER / f"{kind}.gguf"
    if not part.exists():
        FOLDER.mkdir(parents=True, exist_ok=True)
        full, partial = FOLDER / "full.gguf", FOLDER / "partial.gguf"
        sides.output_of([infer, "dummy", "phi3", "--type", kind, "--output", full])
        sides.output_of([python, HERE / "models.py", "cut", full, partial])
        full.unlink()
        partial.rename(part)
    return part


def converted(python: Path, file: Path, kind: str, arguments: list[str]) -> Path:
    """Returns the folder of a peer's model, written if it is missing."""
    folder = FOLDER / "-".join([kind, *arguments])
    if not folder.exists():
        partial = FOLDER / "partial"
        partial.mkdir(exist_ok=True)
        sides.output_of([python, HERE / "models.py", "openvino" if kind == "openvino" else "onnx", file, partial, *arguments])
        partial.rename(folder)
    return folder


def agree(python: Path, infer: Path, common: list[object], file: Path, workers: dict[str, sides.CommandProcess]) -> None:
    """Compares the log-odds of CHOICES after PROMPTS; prints the largest difference of each peer.

    Raises ValueError if it exceeds llamacpp.AGREEMENT, or if a word is not one token.
    """
    words = dict.fromkeys(" ".join([*PROMPTS, *CHOICES]).split())
    known = json.loads(sides.output_of([python, HERE / "models.py", "tokens", file, *words]))
    largest = dict.fromkeys(workers, 0.0)
    for prompt in PROMPTS:
        tokens = [FIRST_TOKEN, *(known[word] for word in prompt.split())]
        choices = ",".join(f" {word}" for word in CHOICES)
        answer = json.loads(sides.output_of([infer, "score", *common, "--raw", "--choices", choices, "-o", "json", prompt]))
        if answer["usage"]["prompt_tokens"] != len(tokens):
            raise ValueError(f"`{prompt}` has {answer['usage']['prompt_tokens']} tokens in `infer`, expected {len(tokens)}")
        ours = [choice["logprob"] for choice in answer["choices"]]
        for name, worker in workers.items():
            logits = worker.ask(f"logits {' '.join(map(str, tokens))}")
            theirs = [logits[known[word]] for word in CHOICES]
            # Differences to the first choice, as logits have no common zero.
            gaps = [abs((a - ours[0]) - (b - theirs[0])) for a, b in zip(ours, theirs)]
            largest[name] = max(largest[name], *gaps)
    for name, gap in largest.items():
        print(f"{name}: log-odds differ by at most {gap:.3f}", file=sys.stderr)
        if gap > llamacpp.AGREEMENT:
            raise ValueError(f"log-odds of {name} differ by {gap:.2f}, expected at most {llamacpp.AGREEMENT}: the models differ")


def measure(python: Path, arguments: argparse.Namespace) -> list[sides.Comparison]:
    """Measures `infer` on each type beside the peers."""
    files = {kind: write(python, arguments.infer, kind) for kind in dict.fromkeys([SHARED, *arguments.type])}
    comparisons = []
    with ExitStack() as stack:
        workers = {}
        for name in arguments.peers:
            kind, sizes, properties = PEERS[name]
            folder = converted(python, files[SHARED], kind, sizes)
            command = [python, HERE / "worker.py", kind, folder, arguments.threads, *properties]
            workers[name] = stack.enter_context(sides.CommandProcess(command, stderr=subprocess.DEVNULL))
        for kind in arguments.type:
            config = stack.enter_context(llamacpp.configured(files[kind], [f"threads = {arguments.threads}"]))
            common = [*config, "--model", "peer"]
            if kind == SHARED:
                same = {name: worker for name, worker in workers.items() if PEERS[name][1][0] == "32"}
                agree(python, arguments.infer, common, files[kind], same)
            asked = f"measure {llamacpp.DECODE} {' '.join(map(str, llamacpp.PREFILL))}"
            turns = {"infer": lambda _, common=common: llamacpp.infer_bench(arguments.infer, common, arguments.threads, [])}
            turns |= {name: lambda _, worker=worker: worker.ask(asked) for name, worker in workers.items()}
            title = f"Phi-3 Mini, 8 layers, `infer` on {kind.upper()}, tokens/s"
            comparisons.append(sides.interleave(sides.Comparison(title, "infer"), turns, arguments.rounds))
    return comparisons


def main() -> list[dict]:
    """Writes the models and measures."""
    parser = sides.parser(__doc__, 3)
    parser.add_argument("--type", nargs="+", choices=TYPES, default=[SHARED], help="types of `infer`'s file (default: q4_0)")
    parser.add_argument("--peers", nargs="+", choices=PEERS, default=list(PEERS), help="(default: all)")
    parser.add_argument("--threads", type=int, default=sides.cores(), help="(default: %(default)s)")
    arguments = parser.parse_args()
    version = sides.version_of(arguments.infer)
    python = sides.environment("genai", HERE / "requirements.txt")
    pinned = dict(line.split("==") for line in (HERE / "requirements.txt").read_text().splitlines() if "==" in line)
    versions = {name: pinned[name] for name in ("openvino-genai", "openvino", "onnxruntime-genai", "onnxruntime")}
    comparisons = measure(python, arguments)
    return sides.show(comparisons, arguments.output, {"infer": version, **versions, "threads": str(arguments.threads)})


if __name__ == "__main__":
    sys.exit(sides.finish(main))
