"""Into how many tokens unions of tokenizers cut Arabic words, and what else is promised of them.

    python benchmarks/unions.py FOLDER

FOLDER holds `VARIETY.tsv` for some varieties of Arabic, a source and a text in each line, tabulator between them. Second
tokenizers are those of aranizer, which must be installed, and two that are trained on nine tenths of these lines; firsts
are trained on the documentation of this project. The other tenth is measured. Writes `results/unions.md`, and nothing
of the lines.
"""

import argparse
import importlib.util
import json
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from firsts import by_bytes, by_bytes_at_random, by_characters, of_pieces, of_words
from modelmerger_plugins.tokenizer.code_lines import CODE
from modelmerger_plugins.tokenizer.union.documents import document_of
from modelmerger_plugins.tokenizer.union.joining import Union, union_of
from tokenizers import Tokenizer
from unions_at_size import measured_apart

HERE = Path(__file__).resolve().parent
RESULT = HERE / "results/unions.md"
Value = dict[str, Any]
SIZE, SMALL = 6_000, 16_000
KNOWN = 1_000
"""Arabic lines that one of the first tokenizers is trained on, as general models are on a little Arabic."""
WIDE = 151_669
BLOCK = range(0x600, 0x700)


def varieties(folder: Path) -> tuple[list[str], dict[str, list[str]]]:
    """The lines to train on, and every tenth line by variety."""
    trained, measured = list[str](), dict[str, list[str]]()
    for path in sorted(folder.glob("*.tsv")):
        texts = [row.partition("\t")[2] for row in path.read_text(encoding="utf-8").splitlines()]
        measured[path.stem] = texts[::10]
        trained += [text for place, text in enumerate(texts) if place % 10]
    return trained, measured


def documentation() -> list[str]:
    """Lines of English, and of code."""
    pages = sorted((HERE.parent / "docs").rglob("*.md"))
    found = [line for page in pages for line in page.read_text(encoding="utf-8").splitlines()]
    found += [line for page in sorted(HERE.glob("*.py")) for line in page.read_text(encoding="utf-8").splitlines()]
    return [line for line in [*found, *CODE] if line.strip() and not any(ord(letter) in BLOCK for letter in line)]


def opened(value: Mapping[str, Any]) -> Tokenizer:
    tokenizer = Tokenizer.from_str(json.dumps(value))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer


def joined(first: Value, second: Value) -> Union:
    return union_of([document_of(value, f"m{place}", "tokenizer.json") for place, value in enumerate((first, second))])


def ids(tokenizer: Tokenizer, lines: Sequence[str]) -> list[list[int]]:
    return [encoding.ids for encoding in tokenizer.encode_batch(list(lines), add_special_tokens=False)]


def per_word(tokenizer: Tokenizer, lines: Sequence[str]) -> float:
    return sum(map(len, ids(tokenizer, lines))) / sum(len(line.split()) for line in lines)


def changed(before: Tokenizer, union: Union, lines: Sequence[str]) -> tuple[int, int]:
    """How many lines the union cuts otherwise than the first, and of how many: those that name no added token of it."""
    special = [token["content"] for token in union.added]
    kept = [line for line in lines if not any(token in line for token in special)]
    pairs = zip(ids(before, kept), ids(opened(union.value), kept), strict=True)
    return sum(ours != theirs for ours, theirs in pairs), len(kept)


def themselves(union: Union) -> str:
    """The share of imported tokens that are whole text, and are cut to themselves."""
    made = opened(union.value)
    imported = union.joined[0].imported.entries
    texts = made.decode_batch([[union.tokens[token]] for token in imported], skip_special_tokens=False)
    whole = [token for token, text in zip(imported, texts, strict=True) if text and "\ufffd" not in text]
    return (
        f"{sum([piece.value for piece in made.model.tokenize(token)] == [token] for token in whole) / len(whole):.2%}"
    )


def beside(ours: float, theirs: float) -> str:
    return f"{ours:.3f} ({ours / theirs - 1:+.1%})"


def row(names: str, first: Value, second: Value, lines: Sequence[str], english: Sequence[str]) -> str:
    union = joined(first, second)
    before, after, made = opened(first), opened(second), opened(union.value)
    words = [" ".join(word for word in line.split() if all(ord(letter) in BLOCK for letter in word)) for line in lines]
    spaced = [f" {line}" for line in words]
    cells = [names, f"{per_word(before, lines):.3f}", f"{per_word(after, lines):.3f}"]
    cells += [beside(per_word(made, lines), per_word(after, lines))]
    cells += [beside(per_word(made, words), per_word(after, words))]
    cells += [beside(per_word(made, spaced), per_word(after, words)) if names.startswith("bytes") else ""]
    other, among = changed(before, union, english)
    back = [sum(map(str.__eq__, lines, one.decode_batch(ids(one, lines)))) for one in (made, before)]
    cells += [f"{other} of {among:,}", themselves(union), f"{back[0]:,} ({back[1]:,})"]
    return f"| {' | '.join(cells)} |"


def table(folder: Path) -> Iterator[str]:
    place = importlib.util.find_spec("aranizer")
    if place is None or not place.submodule_search_locations:
        raise SystemExit("aranizer is not installed: pip install aranizer")
    files = Path(place.submodule_search_locations[0]) / "tokenizers"
    bpe, pieces = (
        json.loads((files / name).read_text())
        for name in ("bpe/BPE_tokenizer_32.0K.json", "sp/SP_tokenizer_32.0K.json")
    )
    trained, measured = varieties(folder)
    english = documentation()
    lines = [line for group in measured.values() for line in group]
    words = sum(len(line.split()) for line in lines)
    yield f"{len(lines):,} lines of {', '.join(measured)}: {words:,} words, {words / len(lines):.1f} in a line."
    yield ""
    yield (
        "| first + second | first | second | union | Arabic words alone | the same behind a space | lines of English and "
        "code cut otherwise | imported whole text cut to itself | lines that come back (by the first) |"
    )
    yield "|---|" + "---:|" * 8
    some = [*english, *lines[:40]]
    firsts: list[tuple[str, Callable[[Sequence[str], int], Value]]] = [
        ("bytes", by_bytes),
        ("characters as in Llama 2", by_characters),
    ]
    yield row("bytes + BPE_32K", by_bytes(some, SIZE), bpe, lines, english)
    for name, make in firsts:
        yield row(f"{name} + SP_32K", make(some, SIZE), pieces, lines, english)
    knowing = by_bytes([*english, *random.Random(0).sample(trained, KNOWN)], SIZE + KNOWN)
    yield row("bytes that know some Arabic + SP_32K", knowing, pieces, lines, english)
    yield row("Unigram + Unigram", of_pieces(some, SIZE), of_pieces(trained, SMALL), lines, english)
    yield row("WordPiece + WordPiece", of_words(some, SIZE), of_words(trained, SMALL), lines, english)
    yield ""
    for name, second in (("BPE_32K", bpe), ("SP_32K", pieces)):
        seconds, mebibytes = measured_apart(by_bytes_at_random(WIDE), second)
        yield f"- {WIDE:,} tokens at random + {name}: {seconds:.1f} s of CPU and {mebibytes:.0f} MiB, with reading and writing the files."


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path, metavar="FOLDER")
    given = parser.parse_args()
    heading = ["# Unions of tokenizers", "", "Made by `benchmarks/unions.py`: tokens per word.", ""]
    text = "\n".join([*heading, *table(given.folder), ""])
    RESULT.write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
