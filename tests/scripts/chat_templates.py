"""Render chat templates with Jinja2, to compare with the engine's interpreter.

    pip install jinja2==3.1.6
    chat_templates.py                              # families.json, from the templates beside it
    chat_templates.py --archive SDIST --out CASES  # all templates of a llama-cpp-python archive

The environment is that of Hugging Face's `apply_chat_template`: the immutable sandbox, trimmed
blocks, loop controls, and its own `tojson`, `raise_exception` and `strftime_now`, whose clock
stands still here. The templates in host/engine/tests/data/templates/families are written for this
test, from the documentation of the models in their names: with the roles, the control tokens and
the language features of the real ones, and other wording. Each case is a template, its variables,
and the text that Jinja2 renders; or its message, if it calls `raise_exception`; or null, if it
fails otherwise.

`make test-tokenizers` compares the archive's templates.
"""

import argparse
import datetime
import json
import sys
import tarfile
from pathlib import Path

from jinja2 import nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment

DATA = Path(__file__).resolve().parents[2] / "host/engine/tests/data/templates"
NOW = datetime.datetime(2026, 3, 7, 9, 5, 2, tzinfo=datetime.timezone.utc)

SYSTEM = {"role": "system", "content": "  Answer in one word.\n"}
USER = {"role": "user", "content": "Is <b>water</b> wet? \"Yes\" & 'no' – é😀"}
ANSWER = {"role": "assistant", "content": "<think>\nIt is.\n</think>\n\nYes.\n"}
CALL = {
    "id": "a1b2c3d4e",
    "type": "function",
    "function": {"name": "weather", "arguments": {"city": "Bern", "days": [1, 2.5], "exact": True}},
}
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "weather",
            "description": 'The weather "there".\nIn metric units.',
            "parameters": {
                "type": "object",
                "properties": {
                    "city": {"type": "string", "enum": ["Bern", "Graz"], "description": "A city"},
                    "days": {"type": ["array", "null"], "items": {"type": "number"}},
                    "exact": {"type": "boolean", "default": False},
                    "where": {"type": "object", "properties": {"lat": {"type": "integer"}}},
                },
                "required": ["city"],
            },
        },
    },
    {"type": "function", "function": {"name": "stop", "description": "Stops.", "parameters": {}}},
]
CALLS = [
    {"role": "user", "content": "Weather in Bern?"},
    {"role": "assistant", "content": "", "tool_calls": [CALL]},
    {"role": "tool", "name": "weather", "tool_call_id": "a1b2c3d4e", "content": '{"rain": 2}'},
]
PARTS = {"role": "user", "content": [{"type": "text", "text": " one "}, {"type": "text", "text": "two"}]}

TOKENS = {"bos_token": "<s>", "eos_token": "</s>", "add_generation_prompt": True}

# Further variables of each conversation.
CONVERSATIONS = {
    "user": {"messages": [USER]},
    "system": {"messages": [SYSTEM, USER]},
    "turns": {"messages": [SYSTEM, USER, ANSWER, {"role": "user", "content": " And ice? /no_think"}]},
    "answered": {"messages": [USER, ANSWER], "add_generation_prompt": False},
    "quiet": {"messages": [USER], "enable_thinking": False, "thinking": False},
    "thoughtful": {"messages": [SYSTEM, USER], "enable_thinking": True, "thinking": True, "think": True},
    "offered": {"messages": [SYSTEM, USER], "tools": TOOLS, "xml_tools": TOOLS},
    "called": {"messages": [*CALLS, {"role": "user", "content": "Thanks"}], "tools": TOOLS},
    "waiting": {"messages": [SYSTEM, *CALLS], "tools": TOOLS[:1]},
    "wrong": {"messages": [ANSWER, ANSWER]},
    "parts": {"messages": [PARTS]},
    "empty": {"messages": []},
    "options": {
        "messages": [USER, {"role": "assistant", "content": "Yes"}],
        "date_string": "1 May 2026",
        "documents": [{"doc_id": 1, "title": "Ice", "text": "Ice is dry."}],
        "controls": {"length": "short", "originality": "extractive"},
        "categories": ["Spam", "Threats"],
        "guideline": '"No Spam": no advertising.',
        "guardian_config": {"criteria_id": "harm"},
        "builtin_tools": ["search", "code_interpreter"],
        "tools_in_user_message": False,
        "reasoning_effort": "low",
    },
}
CHATS = {name: TOKENS | variables for name, variables in CONVERSATIONS.items()}


class Generation(Extension):
    """The tag that marks the model's turns, which has no effect on the text."""

    tags = {"generation"}

    def parse(self, parser):
        line = next(parser.stream).lineno
        body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
        return nodes.If(nodes.Const(True), body, [], [], lineno=line)


class Refused(Exception):
    """The template called `raise_exception`."""


def raise_exception(message):
    raise Refused(message)


def tojson(x, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
    return json.dumps(x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


ENVIRONMENT = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols, Generation])
ENVIRONMENT.filters["tojson"] = tojson
ENVIRONMENT.globals["raise_exception"] = raise_exception
ENVIRONMENT.globals["strftime_now"] = NOW.strftime


def case(name, source):
    """A template with its renders."""
    renders = {}
    for chat, variables in CHATS.items():
        try:
            expected = ENVIRONMENT.from_string(source).render(**variables)
        except Refused as error:
            expected = {"refused": str(error)}
        except Exception:  # noqa: BLE001 - Jinja2 and Python raise many kinds
            expected = None
        renders[chat] = expected
    return {"name": name, "template": source, "renders": renders}


def archived(path):
    """The templates of an archive, by name."""
    with tarfile.open(path) as archive:
        for member in archive.getmembers():
            if member.name.endswith(".jinja") and "llama.cpp/models/templates/" in member.name:
                yield Path(member.name).name, archive.extractfile(member).read().decode()


def main():
    """Writes the cases."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--archive", type=Path, help="render its templates, not those of the families")
    parser.add_argument("--out", type=Path, default=DATA / "families.json", help="default: %(default)s")
    arguments = parser.parse_args()
    if arguments.archive:
        sources = dict(archived(arguments.archive))
    else:
        sources = {path.name: path.read_text() for path in (DATA / "families").glob("*.jinja")}
    if not sources:
        sys.exit("no templates found")
    templates = [case(name, source) for name, source in sorted(sources.items())]
    result = {
        "now": int(NOW.timestamp()),
        "chats": CHATS,
        "templates": [entry if arguments.archive else entry | {"template": None} for entry in templates],
    }
    arguments.out.write_text(json.dumps(result, ensure_ascii=False, indent=None) + "\n")
    rendered = sum(isinstance(text, str) for entry in templates for text in entry["renders"].values())
    print(f"{len(templates)} templates, {rendered} of {len(templates) * len(CHATS)} chats rendered")


if __name__ == "__main__":
    main()
