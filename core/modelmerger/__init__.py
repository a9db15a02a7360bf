"""modelmerger: merge language models and adapters, exactly, in constant memory, and publish the result in one step.

Names are imported when they are first used, so that `import modelmerger` imports neither torch nor transformers.
"""

from importlib import import_module

TYPE_CHECKING = False  # which type checkers know by its name: a program that is starting is soon past this module

if TYPE_CHECKING:
    from modelmerger.cli.printed import print_json as print_json
    from modelmerger.config.documents.document import DocumentError as DocumentError
    from modelmerger.config.documents.document import dump_yaml as dump_yaml
    from modelmerger.config.documents.document import parse_document as parse_document
    from modelmerger.config.merge_config import MergeConfig as MergeConfig
    from modelmerger.config.naming import base_name as base_name
    from modelmerger.engine.arithmetic import one_thread_each as one_thread_each
    from modelmerger.engine.memory.recalled import recalled as recalled
    from modelmerger.engine.memory.recalled import recalling as recalling
    from modelmerger.engine.memory.resident import map_from as map_from
    from modelmerger.engine.merged_checkpoint import MergedCheckpoint as MergedCheckpoint
    from modelmerger.hooks.markers import HOOKS_VERSION as HOOKS_VERSION
    from modelmerger.hooks.markers import hookimpl as hookimpl
    from modelmerger.inputs.elements import read_elements as read_elements
    from modelmerger.inputs.executable import executable_keys as executable_keys
    from modelmerger.inputs.executable import is_executable as is_executable
    from modelmerger.inputs.file_checkpoint import FileCheckpoint as FileCheckpoint
    from modelmerger.inputs.file_checkpoint import StoredTensor as StoredTensor
    from modelmerger.inputs.file_names import EMBEDDER_FILES as EMBEDDER_FILES
    from modelmerger.inputs.file_names import PICKLED_SUFFIXES as PICKLED_SUFFIXES
    from modelmerger.inputs.file_names import PROCESSOR_FILES as PROCESSOR_FILES
    from modelmerger.inputs.file_names import TEMPLATES_FOLDER as TEMPLATES_FOLDER
    from modelmerger.inputs.file_names import TOKENIZER_FILES as TOKENIZER_FILES
    from modelmerger.inputs.loading import LoadContext as LoadContext
    from modelmerger.inputs.loading import check_beside as check_beside
    from modelmerger.inputs.loading import identify_beside as identify_beside
    from modelmerger.inputs.loading import list_directory as list_directory
    from modelmerger.inputs.loading import read_beside as read_beside
    from modelmerger.inputs.loading import resolve_inside as resolve_inside
    from modelmerger.inputs.pickled import read_pickled as read_pickled
    from modelmerger.inputs.regular_files import open_regular as open_regular
    from modelmerger.inputs.safetensors_header.building import build_header as build_header
    from modelmerger.inputs.safetensors_header.header import HeaderError as HeaderError
    from modelmerger.inputs.safetensors_header.header import TensorEntry as TensorEntry
    from modelmerger.inputs.safetensors_header.parsing import MOST_HEADER_BYTES as MOST_HEADER_BYTES
    from modelmerger.inputs.safetensors_header.reading import read_header as read_header
    from modelmerger.inputs.strict_json import read_json as read_json
    from modelmerger.inputs.tensor_selection import TensorSelection as TensorSelection
    from modelmerger.inputs.torch_dtypes import dtype_from_torch as dtype_from_torch
    from modelmerger.inputs.torch_dtypes import torch_dtype as torch_dtype
    from modelmerger.merger import ModelMerger as ModelMerger
    from modelmerger.merger import check_model_compatibility as check_model_compatibility
    from modelmerger.merger import merge as merge
    from modelmerger.output.sink import Sink as Sink
    from modelmerger.output.sink import Writer as Writer
    from modelmerger.output.sinks.memory_sink import MemorySink as MemorySink
    from modelmerger.output.sinks.module_sink import ModuleSink as ModuleSink
    from modelmerger.output.verification import verify as verify
    from modelmerger.planning.apart.joined_view import JoinedView as JoinedView
    from modelmerger.planning.composition import check_same_base as check_same_base
    from modelmerger.planning.layers.layer_view import LayerView as LayerView
    from modelmerger.planning.layers.stacked_config import stacked_config as stacked_config
    from modelmerger.planning.mismatches.quantised import quantised_tensors as quantised_tensors
    from modelmerger.planning.slices import OBSERVED as OBSERVED
    from modelmerger.planning.tensor_names import HEADS as HEADS
    from modelmerger.planning.tensor_names import is_embedding as is_embedding
    from modelmerger.planning.tensor_names import is_head as is_head
    from modelmerger.planning.tensor_names import layer_of as layer_of
    from modelmerger.planning.tensor_names import precedes_layers as precedes_layers
    from modelmerger.planning.tensor_names import tied_heads as tied_heads
    from modelmerger.planning.views import CheckpointView as CheckpointView
    from modelmerger.run import Watch as Watch
    from modelmerger.run_part import merge_part as merge_part
    from modelmerger.tensors import merge_tensors as merge_tensors
    from modelmerger.terms import split_merge as split_merge
    from modelmerger.values.checkpoint import Apart as Apart
    from modelmerger.values.checkpoint import Base as Base
    from modelmerger.values.checkpoint import Checkpoint as Checkpoint
    from modelmerger.values.checkpoint import Donor as Donor
    from modelmerger.values.checkpoint import TensorInfo as TensorInfo
    from modelmerger.values.checkpoint import models_behind as models_behind
    from modelmerger.values.composition import Coefficients as Coefficients
    from modelmerger.values.composition import Composition as Composition
    from modelmerger.values.composition import DeferredComposition as DeferredComposition
    from modelmerger.values.dtypes import DTYPES as DTYPES
    from modelmerger.values.dtypes import dtype_from_config as dtype_from_config
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
    from modelmerger.values.file_identity import FileIdentity as FileIdentity
    from modelmerger.values.findings import MOST_EXAMPLES as MOST_EXAMPLES
    from modelmerger.values.findings import Better as Better
    from modelmerger.values.findings import Finding as Finding
    from modelmerger.values.findings import Sample as Sample
    from modelmerger.values.findings import ValidationReport as ValidationReport
    from modelmerger.values.layout import FilesBeside as FilesBeside
    from modelmerger.values.layout import InputTensors as InputTensors
    from modelmerger.values.layout import Layout as Layout
    from modelmerger.values.layout import OutputFile as OutputFile
    from modelmerger.values.layout import OutputTensor as OutputTensor
    from modelmerger.values.layout import Placement as Placement
    from modelmerger.values.layout import shard_names as shard_names
    from modelmerger.values.layout import split_into_shards as split_into_shards
    from modelmerger.values.layout import weight_index as weight_index
    from modelmerger.values.model_reference import Location as Location
    from modelmerger.values.model_reference import ModelReference as ModelReference
    from modelmerger.values.model_reference import user_path as user_path
    from modelmerger.values.options.checks import Check as Check
    from modelmerger.values.options.checks import as_yaml as as_yaml
    from modelmerger.values.options.checks import must_be_available as must_be_available
    from modelmerger.values.options.checks import must_be_between as must_be_between
    from modelmerger.values.options.checks import must_be_finite as must_be_finite
    from modelmerger.values.options.checks import must_be_one_of as must_be_one_of
    from modelmerger.values.options.checks import must_not_be_empty as must_not_be_empty
    from modelmerger.values.plain_names import is_plain_path as is_plain_path
    from modelmerger.values.plan import WHOLE_MODEL as WHOLE_MODEL
    from modelmerger.values.plan import MergePlan as MergePlan
    from modelmerger.values.plan import PlannedModel as PlannedModel
    from modelmerger.values.read_config import ReadConfig as ReadConfig
    from modelmerger.values.report import MergeReport as MergeReport
    from modelmerger.values.sections import Section as Section
    from modelmerger.values.settings import Settings as Settings
    from modelmerger.values.settings import ValidationSettings as ValidationSettings
    from modelmerger.values.strategies.terms import Terms as Terms
    from modelmerger.values.subject import Answer as Answer
    from modelmerger.values.subject import LabelScores as LabelScores
    from modelmerger.values.subject import LanguageModel as LanguageModel
    from modelmerger.values.subject import OpenedModel as OpenedModel
    from modelmerger.values.subject import Subject as Subject
    from modelmerger.values.text import amount as amount
    from modelmerger.values.text import shown as shown
    from modelmerger.values.traits import Traits as Traits
    from modelmerger.values.weights import shown_weight as shown_weight
    from modelmerger.values.weights import varying as varying
    from modelmerger.values.work.block_record import BlockRecord as BlockRecord
    from modelmerger.values.work.figures import Figures as Figures
    from modelmerger.values.work.inquiry import Inquiry as Inquiry
    from modelmerger.values.work.part import PartReport as PartReport
    from modelmerger.values.work.units import Done as Done
    from modelmerger.values.work.units import SliceWork as SliceWork
    from modelmerger.values.work.units import Statistic as Statistic
    from modelmerger.values.work.units import Task as Task
    from modelmerger.values.work.units import Unit as Unit
    from modelmerger.values.work.units import Worker as Worker
    from modelmerger.values.work.units import WorkOrder as WorkOrder
    from modelmerger.worker import open_worker as open_worker
    from modelmerger.worker import open_workers as open_workers

_HOMES = {
    "cli.printed": ("print_json",),
    "config.documents.document": ("DocumentError", "dump_yaml", "parse_document"),
    "config.merge_config": ("MergeConfig",),
    "config.naming": ("base_name",),
    "engine.arithmetic": ("one_thread_each",),
    "engine.memory.recalled": ("recalled", "recalling"),
    "engine.memory.resident": ("map_from",),
    "engine.merged_checkpoint": ("MergedCheckpoint",),
    "hooks.markers": ("HOOKS_VERSION", "hookimpl"),
    "inputs.elements": ("read_elements",),
    "inputs.executable": ("executable_keys", "is_executable"),
    "inputs.file_checkpoint": ("FileCheckpoint", "StoredTensor"),
    "inputs.file_names": (
        "EMBEDDER_FILES",
        "PICKLED_SUFFIXES",
        "PROCESSOR_FILES",
        "TEMPLATES_FOLDER",
        "TOKENIZER_FILES",
    ),
    "inputs.loading": (
        "LoadContext",
        "check_beside",
        "identify_beside",
        "list_directory",
        "read_beside",
        "resolve_inside",
    ),
    "inputs.pickled": ("read_pickled",),
    "inputs.regular_files": ("open_regular",),
    "inputs.safetensors_header.building": ("build_header",),
    "inputs.safetensors_header.header": ("HeaderError", "TensorEntry"),
    "inputs.safetensors_header.parsing": ("MOST_HEADER_BYTES",),
    "inputs.safetensors_header.reading": ("read_header",),
    "inputs.strict_json": ("read_json",),
    "inputs.tensor_selection": ("TensorSelection",),
    "inputs.torch_dtypes": ("dtype_from_torch", "torch_dtype"),
    "merger": ("ModelMerger", "check_model_compatibility", "merge"),
    "output.sinks.memory_sink": ("MemorySink",),
    "output.sinks.module_sink": ("ModuleSink",),
    "output.sink": ("Sink", "Writer"),
    "output.verification": ("verify",),
    "planning.apart.joined_view": ("JoinedView",),
    "planning.composition": ("check_same_base",),
    "planning.layers.layer_view": ("LayerView",),
    "planning.layers.stacked_config": ("stacked_config",),
    "planning.mismatches.quantised": ("quantised_tensors",),
    "planning.slices": ("OBSERVED",),
    "planning.tensor_names": ("HEADS", "is_embedding", "is_head", "layer_of", "precedes_layers", "tied_heads"),
    "planning.views": ("CheckpointView",),
    "run": ("Watch",),
    "run_part": ("merge_part",),
    "tensors": ("merge_tensors",),
    "terms": ("split_merge",),
    "values.checkpoint": ("Apart", "Base", "Checkpoint", "Donor", "TensorInfo", "models_behind"),
    "values.composition": ("Coefficients", "Composition", "DeferredComposition"),
    "values.dtypes": ("DTYPES", "dtype_from_config"),
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
    "values.file_identity": ("FileIdentity",),
    "values.findings": ("Better", "Finding", "MOST_EXAMPLES", "Sample", "ValidationReport"),
    "values.layout": (
        "FilesBeside",
        "InputTensors",
        "Layout",
        "OutputFile",
        "OutputTensor",
        "Placement",
        "shard_names",
        "split_into_shards",
        "weight_index",
    ),
    "values.model_reference": ("Location", "ModelReference", "user_path"),
    "values.options.checks": (
        "Check",
        "as_yaml",
        "must_be_available",
        "must_be_between",
        "must_be_finite",
        "must_be_one_of",
        "must_not_be_empty",
    ),
    "values.plain_names": ("is_plain_path",),
    "values.plan": ("MergePlan", "PlannedModel", "WHOLE_MODEL"),
    "values.read_config": ("ReadConfig",),
    "values.report": ("MergeReport",),
    "values.sections": ("Section",),
    "values.settings": ("Settings", "ValidationSettings"),
    "values.strategies.terms": ("Terms",),
    "values.subject": ("Answer", "LabelScores", "LanguageModel", "OpenedModel", "Subject"),
    "values.text": ("amount", "shown"),
    "values.traits": ("Traits",),
    "values.work.block_record": ("BlockRecord",),
    "values.work.figures": ("Figures",),
    "values.work.inquiry": ("Inquiry",),
    "values.work.part": ("PartReport",),
    "values.work.units": ("Done", "SliceWork", "Statistic", "Task", "Unit", "WorkOrder", "Worker"),
    "worker": ("open_worker", "open_workers"),
    "values.weights": ("shown_weight", "varying"),
}
_HOME = {name: home for home, names in _HOMES.items() for name in names}
__all__ = sorted(_HOME)  # noqa: PLE0605 (the list is the table above)


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module 'modelmerger' has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f"modelmerger.{_HOME[name]}"), name)
    return value


def __dir__() -> list[str]:
    return __all__
