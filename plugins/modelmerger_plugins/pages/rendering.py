"""A page as a file: a template filled in, every text escaped, nothing in it that runs or loads."""

import base64
import hashlib
import json
import unicodedata
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

FOLDER = Path(__file__).parent
_KEPT = "\n\u200c\u200d"
"""Line ends, and the joiners that Arabic script and emoji are written with."""


def render(template: Path, **values: Any) -> bytes:
    """The page of a template that extends `frame.html.j2`, in UTF-8. Equal values give equal bytes."""
    style = (FOLDER / "style.css").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    made = _environment(template.parent).get_template(template.name)
    return made.render(style=style, style_digest=digest, **values).encode()


def visible(value: Any) -> Any:
    """Text in which nothing is invisible: controls, bidirectional overrides and noncharacters are escaped."""
    if not isinstance(value, str) or hasattr(value, "__html__"):
        return value
    text = value.replace("\r\n", "\n").replace("\t", " ")
    if text.isprintable():
        return text
    return "".join(
        c if c in _KEPT or _is_seen(c) else c.encode("unicode_escape", "surrogatepass").decode() for c in text
    )


def _is_seen(character: str) -> bool:
    category = unicodedata.category(character)
    return category[0] != "C" and category not in ("Zl", "Zp")


def is_arabic(text: str) -> bool:
    """Whether most letters of a text are Arabic."""
    letters = [unicodedata.name(c, "").startswith("ARABIC") for c in text if c.isalpha()]
    return 2 * sum(letters) > len(letters)


@cache
def _environment(folder: Path) -> Environment:
    made = Environment(
        loader=FileSystemLoader([folder, FOLDER]),
        autoescape=True,
        finalize=visible,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.tests["arabic"] = is_arabic
    made.filters["tojson_text"] = lambda value: json.dumps(value, ensure_ascii=False, default=str)
    return made
