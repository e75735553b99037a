#!/usr/bin/env python3
"""Counts and names the tests that did not run: skipped.py RECORD [--list JSON] [--only WORD]

RECORD is the file that `skip()` of tests/harness/skip.rs appends to. Ignored tests and their
reasons are read from the sources. JSON is the output of `cargo nextest list --message-format json`,
which adds the tests that its profile leaves out. With --only, tests without WORD in their names are
not listed.
"""

import argparse
import json
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
IGNORED = re.compile(r'#\[ignore = "((?:[^"\\]|\\.)*)"\]\s*(?:#\[[^\n]*\]\s*)*(?:pub )?(?:async )?fn (\w+)', re.S)


def recorded(path):
    """Returns the reasons that a run recorded, by test name."""
    lines = path.read_text().splitlines() if path.exists() else []
    return dict(line.split("\t", 1) for line in lines)


def ignored():
    """Returns the reasons of ignored tests, by test name, from the sources."""
    found = {}
    for folder in ("host", "tests"):
        for path in sorted((ROOT / folder).rglob("*.rs")):
            module = [part for part in path.relative_to(ROOT).with_suffix("").parts if part != "src"]
            if module[0] == "tests":
                module = module[1:]
            for reason, name in IGNORED.findall(path.read_text()):
                found["::".join([*module, name])] = reason
    return found


def left_out(path):
    """Returns the names of the tests that a nextest profile leaves out."""
    suites = json.loads(path.read_text())["rust-suites"].values()
    return [
        name
        for suite in suites
        for name, test in suite["testcases"].items()
        if test["filter-match"].get("reason") == "default-filter"
    ]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("record", type=Path)
    parser.add_argument("--list", type=Path)
    parser.add_argument("--only", default="")
    arguments = parser.parse_args()
    skipped = {**ignored(), **recorded(arguments.record)}
    if arguments.list:
        for name in left_out(arguments.list):
            skipped.setdefault(name, "left out of the edit loop (.config/nextest.toml); `make test` runs it")
    skipped = {name: reason for name, reason in sorted(skipped.items()) if arguments.only in name}
    print(f"skipped: {len(skipped)}")
    for name, reason in skipped.items():
        print(f"  {name}: {reason}")


main()
