"""`report.html`: a page about a validated merge, and what a merge must collect for it while it runs."""

import logging
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from attrs import frozen
from modelmerger import InputError, Problem, Settings, hookimpl

if TYPE_CHECKING:
    from modelmerger import ValidationReport
    from torch import Tensor

MANIFEST = "modelmerger.json"
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
def write_companions(manifest: Mapping[str, Any], report: "ValidationReport") -> Mapping[str, bytes]:
    """The page; nothing where jinja2 is not installed, which a warning says. Raises `InputError` for a manifest that
    does not say what merges write.
    """
    try:
        from modelmerger_plugins.report_page.page import render
    except ModuleNotFoundError as error:
        if report.findings:  # an empty report is a rehearsal
            log.warning("report.html is not written: %s. Install modelmerger[report].", error)
        return {}
    try:
        return {"report.html": render(manifest, report)}
    except Exception as error:  # the report is ours, and the manifest anybody's
        message = (
            f"does not say what a merge writes there, so report.html cannot be made: {type(error).__name__}: {error}"
        )
        raise InputError(
            Problem(f"{message}. Restore the file from a copy.", f"{report.directory}/{MANIFEST}")
        ) from error
