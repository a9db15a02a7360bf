"""modelmerger: merge language models and adapters, exactly, in constant memory, and publish the result in one step.

Names are imported when they are first used, so that `import modelmerger` imports neither torch nor transformers.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from modelmerger.config.merge_config import MergeConfig as MergeConfig
    from modelmerger.hooks.specs import HOOKS_VERSION as HOOKS_VERSION
    from modelmerger.hooks.specs import hookimpl as hookimpl
    from modelmerger.inputs.loading import LoadContext as LoadContext
    from modelmerger.inputs.loading import read_beside as read_beside
    from modelmerger.merger import ModelMerger as ModelMerger
    from modelmerger.merger import check_model_compatibility as check_model_compatibility
    from modelmerger.merger import merge as merge
    from modelmerger.output.verification import verify as verify
    from modelmerger.planning.updates import Coefficients as Coefficients
    from modelmerger.planning.updates import MergedUpdates as MergedUpdates
    from modelmerger.values.checkpoint import Checkpoint as Checkpoint
    from modelmerger.values.checkpoint import Donor as Donor
    from modelmerger.values.checkpoint import FileCheckpoint as FileCheckpoint
    from modelmerger.values.checkpoint import Location as Location
    from modelmerger.values.checkpoint import ModelReference as ModelReference
    from modelmerger.values.checkpoint import StoredTensor as StoredTensor
    from modelmerger.values.checkpoint import TensorInfo as TensorInfo
    from modelmerger.values.errors import ConfigError as ConfigError
    from modelmerger.values.errors import InputChangedError as InputChangedError
    from modelmerger.values.errors import InputError as InputError
    from modelmerger.values.errors import MergeError as MergeError
    from modelmerger.values.errors import ModelCompatibilityError as ModelCompatibilityError
    from modelmerger.values.errors import NumericError as NumericError
    from modelmerger.values.errors import OutputError as OutputError
    from modelmerger.values.errors import PluginError as PluginError
    from modelmerger.values.errors import Problem as Problem
    from modelmerger.values.errors import ThresholdError as ThresholdError
    from modelmerger.values.errors import UnmeasurableError as UnmeasurableError
    from modelmerger.values.findings import Finding as Finding
    from modelmerger.values.findings import Sample as Sample
    from modelmerger.values.findings import ValidationReport as ValidationReport
    from modelmerger.values.labels import LabelScores as LabelScores
    from modelmerger.values.language_model import Answer as Answer
    from modelmerger.values.language_model import LanguageModel as LanguageModel
    from modelmerger.values.layout import Layout as Layout
    from modelmerger.values.layout import OutputFile as OutputFile
    from modelmerger.values.layout import OutputTensor as OutputTensor
    from modelmerger.values.layout import Placement as Placement
    from modelmerger.values.plan import MergePlan as MergePlan
    from modelmerger.values.report import MergeReport as MergeReport
    from modelmerger.values.settings import Settings as Settings
    from modelmerger.values.settings import ValidationSettings as ValidationSettings
    from modelmerger.values.subject import OpenedModel as OpenedModel
    from modelmerger.values.subject import Subject as Subject
    from modelmerger.values.traits import Operation as Operation
    from modelmerger.values.traits import Traits as Traits
    from modelmerger.values.units import SliceWork as SliceWork

_HOMES = {
    "values.checkpoint": (
        "Checkpoint",
        "Donor",
        "FileCheckpoint",
        "Location",
        "ModelReference",
        "StoredTensor",
        "TensorInfo",
    ),
    "config.merge_config": ("MergeConfig",),
    "values.labels": ("LabelScores",),
    "values.errors": (
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
    "values.findings": ("Finding", "Sample", "ValidationReport"),
    "hooks.specs": ("HOOKS_VERSION", "hookimpl"),
    "values.language_model": ("Answer", "LanguageModel"),
    "values.layout": ("Layout", "OutputFile", "OutputTensor", "Placement"),
    "inputs.loading": ("LoadContext", "read_beside"),
    "merger": ("ModelMerger", "check_model_compatibility", "merge"),
    "values.plan": ("MergePlan",),
    "values.report": ("MergeReport",),
    "values.settings": ("Settings", "ValidationSettings"),
    "values.subject": ("OpenedModel", "Subject"),
    "values.traits": ("Operation", "Traits"),
    "planning.updates": ("Coefficients", "MergedUpdates"),
    "output.verification": ("verify",),
    "values.units": ("SliceWork",),
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
