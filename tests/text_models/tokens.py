"""Print the ids of each line of files by Python's `tokenizers`, to compare with the server's.

One JSON array per line of input, with control tokens, without truncation and padding. A line ends
at "\\n" only, so that other line ends are part of the text; bytes that are not UTF-8 become U+FFFD.
Text after the last "\\n" is a line too.

    python tokens.py ../data/text-models/roberta eval.csv > ids.jsonl
    cd ~/.cache/infer/tokenizers
    python .../tokens.py gpt-2.json --split '\\n__ggml_vocab_test__\\n' vectors.inp
"""

import argparse
import itertools
import json
import sys
from collections.abc import Iterator
from pathlib import Path

from tokenizers import Tokenizer


def lines(paths: list[Path], separator: str) -> Iterator[str]:
    """Yields the texts of the files, divided at the separator."""
    for path in paths:
        texts = path.read_bytes().decode(errors="replace").split(separator)
        # The separator at the end of a file does not begin another line.
        yield from texts if texts[-1] or separator != "\n" else texts[:-1]


def main() -> None:
    """Prints the ids of the lines."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", type=Path, help="folder with tokenizer.json, or the file")
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE")
    parser.add_argument(
        "--limit", type=int, metavar="N", help="only the first N lines of all files together"
    )
    parser.add_argument(
        "--split",
        default="\\n",
        help="text between two lines, with the escapes of Python (default: \\n)",
    )
    parser.add_argument(
        "--without-control-tokens", action="store_true", help="no [CLS], <s> and so on"
    )
    arguments = parser.parse_args()
    file = arguments.model / "tokenizer.json" if arguments.model.is_dir() else arguments.model
    tokenizer = Tokenizer.from_file(str(file))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    separator = arguments.split.encode().decode("unicode_escape")
    for line in itertools.islice(lines(arguments.files, separator), arguments.limit):
        encoding = tokenizer.encode(line, add_special_tokens=not arguments.without_control_tokens)
        sys.stdout.write(json.dumps(encoding.ids, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main()
