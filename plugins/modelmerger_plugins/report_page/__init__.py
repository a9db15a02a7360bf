"""`report.html`: a page about a validated merge, and what a merge must collect for it while it runs."""

import logging
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from attrs import frozen
from modelmerger import Settings, ValidationReport, hookimpl

if TYPE_CHECKING:
    from torch import Tensor


log = logging.getLogger("modelmerger")


@frozen(kw_only=True)
class Options:
    """Options of this plugin."""

    geometry: bool | None = None
    """Collect how the models lie to each other, layer by layer, for report.html; without it, where the merge is
    validated."""


@hookimpl
def name_companions() -> list[str]:
    """The page."""
    return ["report.html"]


@hookimpl
def wants_slices(settings: Settings, options: Options) -> bool:
    """Geometry is collected if the user says so, or else if a validation follows that shows it."""
    if options.geometry is not None:
        return options.geometry
    return settings.validation is not None and settings.validation.run_tests


@hookimpl
def observe_slice(
    tensors: Sequence["Tensor"], merged: "Tensor", inputs: Sequence[int], settings: Settings
) -> Mapping[str, int] | None:
    """The geometry of a slice: whole numbers that add up over a tensor; None if there is nothing to compare."""
    from modelmerger_plugins.report_page.geometry import statistics

    return statistics(tensors, merged, inputs, base=len(settings.models))


@hookimpl
def write_companions(manifest: Mapping[str, Any], report: ValidationReport) -> Mapping[str, bytes]:
    """The page; nothing where jinja2 is not installed, which a warning says."""
    try:
        from modelmerger_plugins.report_page.page import render
    except ModuleNotFoundError as error:
        log.warning("report.html is not written: %s. Install modelmerger[report].", error)
        return {}
    return {"report.html": render(manifest, report)}
