"""Write tests/data/language/greedy-*.json: greedy output of llama.cpp on real weights.

For each prompt the file has:
    messages    the conversation; for a file without a chat template `raw`, the text
    prompt      its ids, by the file's chat template or with BOS, so that tokenising can be tested
                by itself
    generated   up to 64 ids (without a template 48), fewer if the model ends its turn (the last id
                is then the end token)
    text        their text
    best        for each step the five best ids with their logits

If an engine differs from llama.cpp at a step, the step is a near-tie if both ids are among the five
best, and their logits differ by no more than the arithmetic's own error. `int8_error` measures that
error: llama.cpp's int8 activations against reference.py's f64, over the five best logits of every
step, with llama.cpp's tokens as input. `exact_differs` lists the steps [prompt, step, llama.cpp's
lead] at which the f64 model has another best token.

    pip install -r tests/scripts/requirements-language.txt
    python tests/scripts/greedy.py smollm2 SmolLM2-135M-Instruct.Q4_1.gguf
    python tests/scripts/greedy.py qwen2.5-0.5b qwen2.5-coder-0.5b-instruct-q4_k_m.gguf
    python tests/scripts/greedy.py gemma-3-270m gemma-3-270m-q4_k_m.gguf
"""

import argparse
import hashlib
import json
import sys
from pathlib import Path

import jinja2
import llamacpp
import numpy as np
import reference

FOLDER = Path(__file__).resolve().parents[2] / "tests" / "data" / "language"
STEPS = 64
BEST = 5
CONTEXT = 512

SYSTEM = "You are a careful assistant. Answer in one short paragraph."
PROMPTS = [
    [("user", "What is the capital of France, and which river runs through it?")],
    [("user", "Write a Python function that returns the n-th Fibonacci number.")],
    [("system", SYSTEM), ("user", "Why is the sky blue?")],
    [("user", "List five fruits, separated by commas.")],
    [("user", "Translate to German: The library opens at nine o'clock on weekdays.")],
    [("system", SYSTEM), ("user", "Explain what a hash table is to a ten-year-old.")],
    [("user", "Hello!"), ("assistant", "Hello! How can I help you today?"), ("user", "Tell me a story about a fox.")],
    [("user", "Compute 17 * 23 step by step.")],
    [("user", "Schreibe einen Satz über Übermut: naïve café, 日本語, 🙂.")],
    [("user", "Complete the sentence in your own words:\n\n    When the lighthouse keeper climbed the stairs,\n")],
]


LICENSE = Path(__file__).resolve().parents[2] / "LICENSE"
# For a base model. The last prompt is longer than Gemma's window of 512.
RAW_PROMPTS = [
    "The lighthouse stood at the end of the long stone pier, and every evening the keeper",
    "def fibonacci(n):\n    \"\"\"Return the n-th Fibonacci number.\"\"\"\n",
    "Die Hauptstadt von Österreich ist Wien. Die Stadt liegt an der",
    "Shopping list:\n1. apples\n2. bread\n3. milk\n4.",
    LICENSE.read_text(encoding="utf-8")[:2883],
]
RAW_STEPS, RAW_CONTEXT = 48, 1024


def render(template: str, messages: list[dict]) -> str:
    """Renders the chat template with the generation prompt.

    Blocks are trimmed as in Hugging Face's tokenizers.
    """
    environment = jinja2.Environment(trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(template).render(messages=messages, add_generation_prompt=True)


def generate(model: llamacpp.Model, prompt: list[int], steps: int) -> tuple[list[int], list[list]]:
    """Returns the greedy ids, and the best ids of each step with their logits."""
    model.reset()
    row = model.append(prompt)[0]
    generated, best = [], []
    while True:
        top = np.argsort(-row, kind="stable")[:BEST]
        best.append([[int(token), round(float(row[token]), 4)] for token in top])
        generated.append(int(top[0]))
        if len(generated) == steps or model.is_end(generated[-1]):
            return generated, best
        row = model.append(generated[-1:])[0]


def int8_error(exact: reference.Model, entries: list[dict]) -> dict:
    """Returns the error of llama.cpp's best logits against f64, and the steps where f64 differs."""
    apart, differs = [], []
    for number, entry in enumerate(entries):
        prompt, generated = entry["prompt"], entry["generated"]
        rows = exact.logits(prompt + generated[:-1], reference.Case(), first=len(prompt) - 1)
        for step, (row, best) in enumerate(zip(rows, entry["best"], strict=True)):
            apart += [logit - row[token] for token, logit in best]
            if int(row.argmax()) != best[0][0]:
                differs.append([number, step, round(best[0][1] - best[1][1], 4)])
    apart = np.abs(apart)
    return {
        "int8_error": {"largest": round(float(apart.max()), 4), "rms": round(float(np.sqrt((apart**2).mean())), 4)},
        "exact_differs": differs,
    }


def main() -> int:
    """Generates and writes the file. Returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", help="NAME of the file greedy-NAME.json")
    parser.add_argument("file", type=Path, help="the GGUF file")
    parser.add_argument("--threads", type=int, default=2, help="threads (default: %(default)s)")
    arguments = parser.parse_args()
    with open(arguments.file, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    exact = reference.Model(arguments.file)
    template = exact.fields.get("tokenizer.chat_template")
    context, steps = (CONTEXT, STEPS) if template else (RAW_CONTEXT, RAW_STEPS)
    entries = []
    with llamacpp.Model(arguments.file, context, arguments.threads) as model:
        for turns in PROMPTS if template else RAW_PROMPTS:
            if template:
                messages = [{"role": role, "content": content} for role, content in turns]
                entry = {"messages": messages, "prompt": model.encode(render(template.contents(), messages), control=True)}
            else:
                bos = llamacpp.llama_cpp.llama_vocab_bos(model.vocabulary)
                entry = {"raw": turns, "prompt": [bos, *model.encode(turns, control=False)]}
            generated, best = generate(model, entry["prompt"], steps)
            text = b"".join(map(model.piece, generated)).decode(errors="replace")
            print(f"{len(entry['prompt'])} + {len(generated)} ids: {text!r}")
            entries.append({**entry, "generated": generated, "text": text, "best": best})
    head = {"file": arguments.file.name, "sha256": digest, **int8_error(exact, entries)}
    print(head)
    lines = ",\n".join(json.dumps(entry, ensure_ascii=False, separators=(",", ":")) for entry in entries)
    opening = json.dumps(head, separators=(",", ":"))[:-1]
    target = FOLDER / f"greedy-{arguments.name}.json"
    target.write_text(f'{opening},"prompts":[\n{lines}\n]}}\n', encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
