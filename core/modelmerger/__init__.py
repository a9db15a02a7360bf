"""modelmerger: merge language models and adapters, exactly, in constant memory, and publish the result in one step.

Names are imported when they are first used, so that `import modelmerger` imports neither torch nor transformers.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from modelmerger.checkpoint import Checkpoint as Checkpoint
    from modelmerger.checkpoint import Donor as Donor
    from modelmerger.checkpoint import FileCheckpoint as FileCheckpoint
    from modelmerger.checkpoint import Location as Location
    from modelmerger.checkpoint import ModelReference as ModelReference
    from modelmerger.checkpoint import StoredTensor as StoredTensor
    from modelmerger.checkpoint import TensorInfo as TensorInfo
    from modelmerger.config import MergeConfig as MergeConfig
    from modelmerger.dialects import DialectScores as DialectScores
    from modelmerger.errors import ConfigError as ConfigError
    from modelmerger.errors import InputChangedError as InputChangedError
    from modelmerger.errors import InputError as InputError
    from modelmerger.errors import MergeError as MergeError
    from modelmerger.errors import ModelCompatibilityError as ModelCompatibilityError
    from modelmerger.errors import NumericError as NumericError
    from modelmerger.errors import OutputError as OutputError
    from modelmerger.errors import PluginError as PluginError
    from modelmerger.errors import Problem as Problem
    from modelmerger.errors import ThresholdError as ThresholdError
    from modelmerger.errors import UnmeasurableError as UnmeasurableError
    from modelmerger.findings import Finding as Finding
    from modelmerger.findings import Sample as Sample
    from modelmerger.findings import ValidationReport as ValidationReport
    from modelmerger.hookspecs import HOOKS_VERSION as HOOKS_VERSION
    from modelmerger.hookspecs import hookimpl as hookimpl
    from modelmerger.language_model import Answer as Answer
    from modelmerger.language_model import LanguageModel as LanguageModel
    from modelmerger.layout import Layout as Layout
    from modelmerger.layout import OutputFile as OutputFile
    from modelmerger.layout import OutputTensor as OutputTensor
    from modelmerger.layout import Placement as Placement
    from modelmerger.loading import LoadContext as LoadContext
    from modelmerger.loading import read_beside as read_beside
    from modelmerger.merger import ModelMerger as ModelMerger
    from modelmerger.merger import check_model_compatibility as check_model_compatibility
    from modelmerger.merger import merge as merge
    from modelmerger.plan import MergePlan as MergePlan
    from modelmerger.report import MergeReport as MergeReport
    from modelmerger.settings import Settings as Settings
    from modelmerger.settings import ValidationSettings as ValidationSettings
    from modelmerger.subject import Subject as Subject
    from modelmerger.traits import Operation as Operation
    from modelmerger.traits import Traits as Traits
    from modelmerger.updates import Coefficients as Coefficients
    from modelmerger.updates import MergedUpdates as MergedUpdates
    from modelmerger.verification import verify as verify
    from modelmerger.work import SliceWork as SliceWork

_HOMES = {
    "checkpoint": ("Checkpoint", "Donor", "FileCheckpoint", "Location", "ModelReference", "StoredTensor", "TensorInfo"),
    "config": ("MergeConfig",),
    "dialects": ("DialectScores",),
    "errors": (
        "ConfigError",
        "InputChangedError",
        "InputError",
        "MergeError",
        "ModelCompatibilityError",
        "NumericError",
        "OutputError",
        "PluginError",
        "Problem",
        "ThresholdError",
        "UnmeasurableError",
    ),
    "findings": ("Finding", "Sample", "ValidationReport"),
    "hookspecs": ("HOOKS_VERSION", "hookimpl"),
    "language_model": ("Answer", "LanguageModel"),
    "layout": ("Layout", "OutputFile", "OutputTensor", "Placement"),
    "loading": ("LoadContext", "read_beside"),
    "merger": ("ModelMerger", "check_model_compatibility", "merge"),
    "plan": ("MergePlan",),
    "report": ("MergeReport",),
    "settings": ("Settings", "ValidationSettings"),
    "subject": ("Subject",),
    "traits": ("Operation", "Traits"),
    "updates": ("Coefficients", "MergedUpdates"),
    "verification": ("verify",),
    "work": ("SliceWork",),
}
_HOME = {name: home for home, names in _HOMES.items() for name in names}
__all__ = sorted(_HOME)  # noqa: PLE0605 (the list is the table above)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'modelmerger' has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f"modelmerger.{_HOME[name]}"), name)
    return value


def __dir__() -> list[str]:
    return __all__
