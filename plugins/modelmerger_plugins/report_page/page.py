"""The page as a file: one template filled in, every text escaped, nothing in it that runs or loads."""

import base64
import hashlib
import json
import os
import unicodedata
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from modelmerger import ValidationReport

from modelmerger_plugins.report_page import answered, measured
from modelmerger_plugins.report_page.layers import Layers, layers_of
from modelmerger_plugins.report_page.plots import Plot, plot
from modelmerger_plugins.report_page.sources import sources_of

FOLDER = Path(__file__).parent
_KEPT = "\n\u200c\u200d"
"""Line ends, and the joiners that Arabic script and emoji are written with."""


def render(manifest: Mapping[str, Any], report: ValidationReport) -> bytes:
    """The page about a merge and its validation: HTML that needs no other file. Equal arguments give equal bytes."""
    style = (FOLDER / "style.css").read_text(encoding="utf-8")
    models = measured.models_of(report)
    layers = layers_of(manifest)
    text = (
        _environment()
        .get_template("page.html.j2")
        .render(
            title=models[0] if models else os.path.basename(report.directory),
            style=style,
            style_digest=base64.b64encode(hashlib.sha256(style.encode()).digest()).decode(),
            manifest=manifest,
            report=report,
            models=models,
            sources=sources_of(manifest),
            limits=measured.limits(report),
            metrics=measured.metrics(report),
            confusions=answered.confusions(report),
            asked=answered.asked(report),
            evidence=measured.evidence(report),
            layers=layers,
            plots=plots_of(layers) if layers else [],
        )
    )
    return text.encode()


def plots_of(layers: Layers) -> list[Plot]:
    """The pictures of a geometry."""
    if not layers.from_base:
        found = [
            plot(
                "Distance from the merged model",
                "‖θ − θ_merged‖ / ‖θ_merged‖ of each source: the lower, the more of it is left in the merged model.",
                layers.places,
                layers.distances,
                percent=True,
            )
        ]
        if len(layers.apart) > 1:
            text = "‖θᵢ − θⱼ‖ / ‖θ_merged‖ of each two sources."
            found.append(plot("Distance between the sources", text, layers.places, layers.apart, percent=True))
        return found
    found = [
        plot(
            "Movement from the base model",
            "‖θ − θ_base‖ / ‖θ_base‖: how much of a layer fine-tuning changed, and, dashed, merging.",
            layers.places,
            layers.distances,
            percent=True,
        )
    ]
    if layers.cosines:
        found += [
            plot(
                "Agreement of task vectors",
                "Cosine of θᵢ − θ_base and θⱼ − θ_base: "
                "1 is the same change, 0 unrelated ones, below 0 they undo each other.",
                layers.places,
                layers.cosines,
            ),
            plot(
                "Sign conflicts",
                "Of the values that both models changed, the share that they changed in opposite directions.",
                layers.places,
                layers.conflicts,
                percent=True,
                reference=(0.5, "by chance"),
            ),
        ]
    return found


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
def _environment() -> Environment:
    made = Environment(
        loader=FileSystemLoader(FOLDER),
        autoescape=True,
        finalize=visible,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.tests["arabic"] = is_arabic
    made.filters["tojson_text"] = lambda value: json.dumps(value, ensure_ascii=False, default=str)
    return made
