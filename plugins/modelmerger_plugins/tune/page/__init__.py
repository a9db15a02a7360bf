"""`tune.html`: a page about a search. One file, which runs nothing and loads nothing."""

import base64
import hashlib
from functools import cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from modelmerger_plugins.tune.page.pictures import heat, scatter, steps
from modelmerger_plugins.tune.report import TuneReport

PAGE = "tune.html"
FOLDER = Path(__file__).parent


def render(report: TuneReport) -> bytes:
    """The page. Equal reports give equal bytes."""
    style = (FOLDER / "style.css").read_text(encoding="utf-8")
    text = (
        _environment()
        .get_template("page.html.j2")
        .render(
            report=report,
            style=style,
            digest=base64.b64encode(hashlib.sha256(style.encode()).digest()).decode(),
            steps=steps(report),
            heat=heat(report),
            scatter=scatter(report),
        )
    )
    return text.encode()


@cache
def _environment() -> Environment:
    return Environment(
        loader=FileSystemLoader(FOLDER),
        autoescape=True,
        finalize=_visible,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _visible(value: object) -> object:
    """Text in which nothing is invisible."""
    if not isinstance(value, str) or hasattr(value, "__html__") or value.replace("\n", "").isprintable():
        return value
    return "".join(c if c == "\n" or c.isprintable() else c.encode("unicode_escape").decode() for c in value)
