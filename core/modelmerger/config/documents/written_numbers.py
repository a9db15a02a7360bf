"""Numbers as people write them who do not write them as YAML does: decimal commas, digits of other scripts."""

import re
import unicodedata

_SIGNS = str.maketrans({"٫": ".", "،": ".", "，": ".", ",": ".", "٬": "", "−": "-", "–": "-", "＋": "+", "．": "."})
_NUMBER = re.compile(r"[-+]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][-+]?[0-9]+)?")
_OTHERWISE = re.compile(r"[^-+0-9.eE\s]")
_MOST = 40
"""Characters of a number that is read."""


def number_meant(text: str) -> str | None:
    """The number that a text stands for, as YAML writes it (`٠٫٥`, `0,5` and `50 %` → `0.5`); None where it is none."""
    if len(text) > _MOST:
        return None
    plain = "".join(str(unicodedata.decimal(c)) if unicodedata.decimal(c, None) is not None else c for c in text)
    plain = plain.strip().translate(_SIGNS)
    percent = plain.rstrip("%٪").rstrip()
    if not _NUMBER.fullmatch(percent):
        return None
    return percent if percent == plain else f"{float(percent) / 100:g}"


def written_plainly(text: str) -> str:
    """What to do about a text where a number is due: `Write 0.5, …`; empty where it means none, or is written so."""
    meant = number_meant(text)
    if meant is None or not _OTHERWISE.search(text):
        return ""
    return f"Write {meant}, with {'a point and ' if '.' in meant else ''}the digits 0 to 9"
