"""Writes Markdown with one sentence a line, so that a change of a sentence is a change of a line.

    python docs/building/sentences.py [FILE…]

Without files, all of the project's pages. Code, tables, headings and HTML are left alone.
"""

import re
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
_ITEM = re.compile(r"(\s*(?:[-*+]|\d+\.) +)(.*)")
_ASIDE = re.compile(r"\s*(?:\||#|>|<|:::|\[[^\]]+\]: |---|!!! )")
_FENCE = re.compile(r"\s*(```|~~~)")
_CODE = re.compile(r"`[^`]+`|\]\([^)]*\)")
_END = re.compile(r"(?<=[.!?؟])([\"'”)\]_]*) +(?=\S)")
_ABBREVIATED = re.compile(r"(?:\b(?:e\.g|i\.e|etc|cf|vs|al|approx|No)|[(\s][A-Z]|\.\.|…)\.$")


def pages() -> list[Path]:
    """Every Markdown file of the project that people write."""
    found = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
    return sorted([*found, ROOT / "examples/dialects/README.md", ROOT / "benchmarks/README.md"])


def written_anew(text: str) -> str:
    """The same text with one sentence a line."""
    return "\n".join(_lines(text.split("\n")))


def sentences(text: str) -> list[str]:
    """The sentences of a paragraph. Code, and where links lead, is never cut."""
    hidden = _CODE.sub(lambda found: "\0" * len(found[0]), text)
    cuts = [0]
    for end in _END.finditer(hidden):
        before = hidden[: end.end(1)]
        if not _ABBREVIATED.search(before.rstrip("\"'”)]_")) and not before.endswith("**"):
            cuts.append(end.end())
    return [text[a:b].strip() for a, b in zip(cuts, [*cuts[1:], len(text)], strict=True)]


def _lines(lines: list[str]) -> Iterator[str]:
    block: list[str] = []
    fence = ""
    for line in lines:
        mark = _FENCE.match(line)
        if fence or mark or not line.strip() or _ASIDE.match(line) or (line.startswith("    ") and not block):
            yield from _block(block)
            block = []
            yield line
            if mark and (not fence or fence == mark[1]):
                fence = "" if fence else mark[1]
            continue
        if _ITEM.match(line) or (block and block[-1].endswith("  ")):
            yield from _block(block)
            block = []
        block.append(line)
    yield from _block(block)


def _block(block: list[str]) -> Iterator[str]:
    """A paragraph, or an item of a list, with its indentation."""
    if not block:
        return
    item = _ITEM.match(block[0])
    first = item[1] if item else block[0][: len(block[0]) - len(block[0].lstrip())]
    text = " ".join([item[2] if item else block[0].strip(), *(line.strip() for line in block[1:])])
    for number, sentence in enumerate(sentences(text)):
        yield (first if number == 0 else " " * len(first)) + sentence


if __name__ == "__main__":
    for page in [Path(name) for name in sys.argv[1:]] or pages():
        old = page.read_text(encoding="utf-8")
        if (new := written_anew(old)) != old:
            page.write_text(new, encoding="utf-8")
            print(page)
