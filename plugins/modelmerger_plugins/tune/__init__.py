"""Tuning: the numbers of a merge are found on text, so that the merged model keeps what each of its sources knows.

What is always on is small: the sections `tune` and `tuned` of a config, and a sentence for whoever merges a config that
is still to be tuned. `MergeTuner` is the Python API, and `modelmerger tune` the command.
"""

from collections.abc import Iterable, Mapping, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any

from modelmerger import Problem, Section, Settings, hookimpl

from modelmerger_plugins.tune.marks import KEY, holds_marks
from modelmerger_plugins.tune.section import Found, Tune, Tuned

if TYPE_CHECKING:
    from modelmerger_plugins.tune.outlook import TunePlan as TunePlan
    from modelmerger_plugins.tune.report import TuneReport as TuneReport
    from modelmerger_plugins.tune.tuner import MergeTuner as MergeTuner

stand_ins = (Found,)
sections = (
    Section(KEY, Tune, description="How `modelmerger tune` finds the numbers that the config leaves open."),
    Section("tuned", Tuned, description="How `modelmerger tune` found the numbers of the config."),
)
_SAID = "this config leaves numbers to be found. Run `modelmerger tune` on it, and merge the tuned.yaml that it writes"
_HOMES = {"MergeTuner": "tuner", "TunePlan": "outlook", "TuneReport": "report"}


@hookimpl
def check_config(settings: Settings) -> Iterable[Problem]:
    """An error for a config that is to be tuned first."""
    if holds_marks(settings.given):
        yield Problem(_SAID, KEY)


@hookimpl
def explain_config(config: Mapping[str, Any], problems: Sequence[Problem]) -> Sequence[Problem] | None:
    """The same error where something stands in place of a number that is not one; it comes first."""
    if not holds_marks(config):
        return None
    said = Problem(_SAID, KEY)
    return [said, *(problem for problem in problems if problem != said and "'per'" not in problem.message)]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module '{__name__}' has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
