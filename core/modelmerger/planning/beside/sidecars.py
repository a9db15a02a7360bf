"""The files beside the weights, known before the first write: what is made anew, and which files are copied."""

from collections.abc import Mapping, Sequence
from itertools import chain

from attrs import evolve, field, frozen

from modelmerger.hooks.assembly import Hooks
from modelmerger.output.earlier.apart import inputs_of
from modelmerger.output.manifest import FILE
from modelmerger.output.recorded import Recording
from modelmerger.planning.beside.inventory import taken_stock
from modelmerger.planning.configs import Configs
from modelmerger.values.checkpoint import Checkpoint
from modelmerger.values.errors import Problem
from modelmerger.values.file_identity import FileIdentity
from modelmerger.values.layout import FilesBeside
from modelmerger.values.model_reference import Location
from modelmerger.values.plan import MergePlan
from modelmerger.values.settings import Settings

WEIGHTS = "the weights"
"""What an error names as the owner of the layout's files."""


@frozen(eq=False, repr=False)
class Sidecars:
    """The files beside the weights, as plugins want them."""

    files: Mapping[str, bytes | FileIdentity] = field(factory=dict)
    """Path in the output → its content, or the file that is copied there."""
    beside: FilesBeside = field(factory=FilesBeside)
    """What becomes of every file of every source."""
    problems: Sequence[Problem] = ()
    """What plugins say of that."""

    @property
    def copied(self) -> list[FileIdentity]:
        """The files of the sources that are copied."""
        return [content for content in self.files.values() if isinstance(content, FileIdentity)]


def plan_sidecars(
    hooks: Hooks,
    plan: MergePlan,
    checkpoints: Sequence[Checkpoint],
    configs: Configs,
    settings: Settings,
    located: Mapping[str, Location],
) -> Sidecars:
    """What every plugin wants to lie beside the weights. Raises `PluginError`, and what reading the files raises.

    located: where everything that the user named was found. Plugins see no local paths in the plan and in the config as
    it was given, unless paths are recorded.
    """
    paths = chain(*inputs_of(settings, checkpoints, located).values())
    recording = Recording.of(paths, as_given=settings.options.record_paths)
    recorded = evolve(settings, given=recording.value(settings.given))
    reserved = dict.fromkeys([*(file.name for file in plan.layout.files), *plan.layout.documents], WEIGHTS)
    reserved[FILE] = "the manifest"
    files = hooks.output.write_sidecars(recording.plan(plan), checkpoints, configs, recorded, reserved)
    beside = taken_stock(files, plan.layout.documents, checkpoints)
    return Sidecars(files, beside, hooks.output.check_files(beside, plan, checkpoints, settings))
