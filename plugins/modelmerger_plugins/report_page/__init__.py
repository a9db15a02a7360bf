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
    """geometry: collect how the models lie to each other, layer by layer, for report.html; without it, where the merge is validated."""

    geometry: bool | None = None


@hookimpl
def declare_options() -> type:
    """The option `geometry`."""
    return Options


@hookimpl
def wants_slices(settings: Settings) -> bool:
    """Geometry is collected where the user says so, else where a validation follows that will show it."""
    asked: bool | None = settings.plugin_options["report_page"].geometry
    validation = settings.validation
    return validation is not None and validation.run_tests if asked is None else asked


@hookimpl
def observe_slice(
    tensors: Sequence["Tensor"], merged: "Tensor", inputs: Sequence[int], settings: Settings
) -> Mapping[str, int] | None:
    """Squares and products of the differences between the models, as whole numbers; None where there is nothing to compare."""
    from modelmerger_plugins.report_page.geometry import statistics

    return statistics(tensors, merged, inputs, base=len(settings.models))


@hookimpl
def write_companions(manifest: Mapping[str, Any], report: ValidationReport) -> Mapping[str, bytes]:
    """The page, or a warning where what it is made with is not installed."""
    try:
        from modelmerger_plugins.report_page.page import render
    except ModuleNotFoundError as error:
        log.warning("report.html is not written: %s. Install modelmerger[report].", error)
        return {}
    return {"report.html": render(manifest, report)}
