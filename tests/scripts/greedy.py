"""Write tests/data/language/greedy-*.json: what llama.cpp generates greedily on real weights.

For each of ten prompts: the messages, the prompt's ids through the file's own chat template (so that tokenising is
tested apart from computing), up to 64 generated ids (fewer where the model ends its turn; the end token is the last
then), their text, and for each step the five best ids with their logits. A first difference of an engine is a near-tie
when the two ids are among a step's best and their logits differ by no more than the arithmetic's own error, which
`int8_error` measures: llama.cpp's int8 activations against reference.py's f64, over all those five best logits, with
the model fed llama.cpp's tokens. `exact_differs` lists the steps [prompt, step, llama.cpp's lead] at which the f64 model
itself would have taken another token.

    pip install -r tests/scripts/requirements-language.txt
    python tests/scripts/greedy.py smollm2 SmolLM2-135M-Instruct.Q4_1.gguf
    python tests/scripts/greedy.py qwen2.5-0.5b qwen2.5-coder-0.5b-instruct-q4_k_m.gguf
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


def render(template: str, messages: list[dict]) -> str:
    """The chat template's text, with the generation prompt; blocks trimmed as Hugging Face's tokenizers do."""
    environment = jinja2.Environment(trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(template).render(messages=messages, add_generation_prompt=True)


def generate(model: llamacpp.Model, prompt: list[int]) -> tuple[list[int], list[list]]:
    """Greedy ids, and the best ids with their logits of every step."""
    model.reset()
    row = model.append(prompt)[0]
    generated, best = [], []
    while True:
        top = np.argsort(-row, kind="stable")[:BEST]
        best.append([[int(token), round(float(row[token]), 4)] for token in top])
        generated.append(int(top[0]))
        if len(generated) == STEPS or model.is_end(generated[-1]):
            return generated, best
        row = model.append(generated[-1:])[0]


def int8_error(exact: reference.Model, entries: list[dict]) -> dict:
    """How far llama.cpp's best logits lie from those of f64, and where f64 would have gone another way."""
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
    """Generate and write; the process's exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", help="greedy-NAME.json is written")
    parser.add_argument("file", type=Path, help="the GGUF file")
    parser.add_argument("--threads", type=int, default=2, help="threads (default: %(default)s)")
    arguments = parser.parse_args()
    with open(arguments.file, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    exact = reference.Model(arguments.file)
    template = exact.fields["tokenizer.chat_template"].contents()
    entries = []
    with llamacpp.Model(arguments.file, CONTEXT, arguments.threads) as model:
        for turns in PROMPTS:
            messages = [{"role": role, "content": content} for role, content in turns]
            prompt = model.encode(render(template, messages), control=True)
            generated, best = generate(model, prompt)
            text = b"".join(map(model.piece, generated)).decode(errors="replace")
            print(f"{len(prompt)} + {len(generated)} ids: {text!r}")
            entries.append(
                {"messages": messages, "prompt": prompt, "generated": generated, "text": text, "best": best}
            )
    head = {"file": arguments.file.name, "sha256": digest, **int8_error(exact, entries)}
    print(head)
    lines = ",\n".join(json.dumps(entry, ensure_ascii=False, separators=(",", ":")) for entry in entries)
    opening = json.dumps(head, separators=(",", ":"))[:-1]
    target = FOLDER / f"greedy-{arguments.name}.json"
    target.write_text(f'{opening},"prompts":[\n{lines}\n]}}\n', encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
