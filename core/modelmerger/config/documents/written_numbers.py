"""Numbers as people write them who do not write them as YAML does: decimal commas, digits of other scripts."""

import re
import unicodedata

_SIGNS = str.maketrans({"٫": ".", "،": ".", "，": ".", ",": ".", "٬": "", "−": "-", "–": "-", "＋": "+", "．": "."})
_NUMBER = re.compile(r"[-+]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][-+]?[0-9]+)?")
_OTHERWISE = re.compile(r"[^-+0-9.eE \t\r\n]")
_FRACTION = re.compile(r"([-+]?[0-9]+)\s*[/⁄]\s*([0-9]+)")
_GROUPED = re.compile(r"[-+]?[0-9]{1,3}(?:[_'’ ][0-9]{3})+(?:\.[0-9]+)?")
_SUFFIXED = re.compile(rf"({_NUMBER.pattern})[fFdD]")
_MOST = 40
"""Characters of a number that is read."""


def number_meant(text: str) -> str | None:
    """The number that a text stands for, as YAML writes it; None where it is none.

    `٠٫٥`, `0,5`, `50 %`, `1/2`, `½` and `0.5f` are `0.5`, and `1_000` is `1000`.
    """
    if len(text) > _MOST:
        return None
    seen = (c for c in text if unicodedata.category(c) != "Cf")  # marks of the direction of writing, such as U+200F
    plain = "".join(str(unicodedata.decimal(c)) if unicodedata.decimal(c, None) is not None else c for c in seen)
    plain = plain.strip().translate(_SIGNS)
    percent = plain.rstrip("%٪").rstrip()
    if not _NUMBER.fullmatch(percent):
        return _as_in_programs(plain)
    return percent if percent == plain else f"{float(percent) / 100:g}"


def _as_in_programs(plain: str) -> str | None:
    """A fraction, a number whose digits stand in groups, or one with the letter of its type."""
    if any(unicodedata.decomposition(c).startswith("<fraction>") for c in plain):
        plain = unicodedata.normalize("NFKC", plain)
    if (found := _FRACTION.fullmatch(plain)) is not None and int(found[2]):
        return f"{int(found[1]) / int(found[2]):g}"
    if _GROUPED.fullmatch(plain):
        return re.sub("[_'’ ]", "", plain)
    return found[1] if (found := _SUFFIXED.fullmatch(plain)) is not None else None


def written_plainly(text: str) -> str:
    """What to do about a text where a number is due: `Write 0.5, …`; empty where it means none, or is written so."""
    meant = number_meant(text)
    if meant is None or not _OTHERWISE.search(text):
        return ""
    return f"Write {meant}, with {'a point and ' if '.' in meant else ''}the digits 0 to 9"
