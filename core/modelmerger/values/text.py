"""Text for people: names from hostile files made safe to show, sizes in units, and near misses."""

import difflib
import unicodedata
from collections.abc import Iterable

LINE_LIMIT = 300
"""Characters in a line about a problem, with what it begins with."""
_UNITS = ("bytes", "KiB", "MiB", "GiB", "TiB", "PiB")


def shown(name: object, limit: int = 120) -> str:
    """The text with all invisible characters escaped, shortened in the middle to `limit` characters."""
    text = str(name)
    if not text.isascii() or not text.isprintable():
        text = "".join(c if _visible(c) else c.encode("unicode_escape", "surrogatepass").decode() for c in text)
    if len(text) <= limit:
        return text
    head = (limit - 1) // 2
    return f"{text[:head]}…{text[-(limit - 1 - head) :]}"


def said_by(error: BaseException) -> str:
    """What an exception says of itself; a word for it where even asking for that fails."""
    try:
        return str(error)
    except Exception:
        return "(what it says cannot be had)"


def _visible(character: str) -> bool:
    return character == " " or unicodedata.category(character)[0] not in "CZ"


def size(count: float) -> str:
    """Bytes in binary units: `size(3 << 20)` is `3.0 MiB`."""
    value = float(count)
    for unit in _UNITS:
        if abs(value) < 1024 or unit == _UNITS[-1]:
            break
        value /= 1024
    return f"{value:.0f} {unit}" if unit == "bytes" else f"{value:.1f} {unit}"


def amount(count: int, noun: str, plural: str | None = None) -> str:
    """`1 tensor`, `3 tensors`, `2 copies`."""
    return f"{count:,} {noun if count == 1 else plural or noun + 's'}"


def with_article(noun: str) -> str:
    """`a model`, `an adapter`."""
    return f"{'an' if noun[:1].lower() in 'aeiou' else 'a'} {noun}"


def suggestion(word: str, known: Iterable[str]) -> str:
    """`, did you mean 'weight'?` for a near miss, else an empty string."""
    near = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f", did you mean '{near[0]}'?" if near else ""


def html_table(caption: str, rows: Iterable[Iterable[object]], head: Iterable[object] = ()) -> str:
    """A table as notebooks show it. What is invisible is escaped, and all of it is text. head: of the columns."""
    import html  # which is not needed to merge

    def row(cells: Iterable[object], tag: str) -> str:
        inner = "".join(f'<{tag} style="text-align:start">{html.escape(shown(cell, 300))}</{tag}>' for cell in cells)
        return f"<tr>{inner}</tr>"

    heading = f"<thead>{row(head, 'th')}</thead>" if head else ""
    body = "".join(row(cells, "td") for cells in rows)
    return f"<table><caption>{html.escape(shown(caption, 300))}</caption>{heading}<tbody>{body}</tbody></table>"


def isolated(text: object, limit: int = 120) -> str:
    """`shown` text between U+2068 and U+2069, so that its direction and that of what is around it do not mix."""
    return f"\u2068{shown(text, limit)}\u2069"
