"""The page as a file: one template filled in, every text escaped, nothing in it that runs or loads."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from modelmerger import ConfigError, ValidationReport, dump_yaml

from modelmerger_plugins.pages.plots import Plot, plot
from modelmerger_plugins.pages.rendering import render as fill
from modelmerger_plugins.report_page import answered, figures, measured
from modelmerger_plugins.report_page.layers import Layers, layers_of
from modelmerger_plugins.report_page.sources import sources_of

FOLDER = Path(__file__).parent


def render(manifest: Mapping[str, Any], report: ValidationReport) -> bytes:
    """The page about a merge and its validation: HTML that needs no other file. Equal arguments give equal bytes."""
    models = measured.models_of(report)
    layers = layers_of(manifest)
    return fill(
        FOLDER / "page.html.j2",
        title=models[0] if models else os.path.basename(report.directory),
        manifest=manifest,
        report=report,
        models=models,
        sources=sources_of(manifest),
        limits=measured.limits(report),
        metrics=measured.metrics(report),
        figures=figures.tables(manifest),
        confusions=answered.confusions(report),
        asked=answered.by_label(report),
        recipe=_recipe(manifest),
        evidence=measured.evidence(report),
        layers=layers,
        plots=plots_of(layers) if layers else [],
    )


def _recipe(manifest: Mapping[str, Any]) -> str:
    """The config of the merge, as YAML where that can hold it."""
    try:
        return dump_yaml(manifest["config"])
    except ConfigError:
        return json.dumps(manifest["config"], ensure_ascii=False, indent=1)


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
