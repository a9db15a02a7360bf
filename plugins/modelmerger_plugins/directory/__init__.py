"""Opens local models: a directory with weights, whole or in shards, or a single file; pickled ones only if allowed.

What lies at a path and is no model is told from its names and its first bytes, with what to do.
"""

from collections.abc import Iterable, Sequence

from attrs import frozen
from modelmerger import Checkpoint, LoadContext, ModelReference, Problem, Settings, hookimpl

from modelmerger_plugins.directory.opening import Reader, open_path
from modelmerger_plugins.directory.same_weights import same_weights
from modelmerger_plugins.directory.two_models import beside_adapters


@frozen(kw_only=True)
class Options:
    """Options about local models."""

    allow_pickle: bool = False
    """Read pickled weights too, through torch's unpickler for weights alone."""


@hookimpl(trylast=True)
def load_model(reference: ModelReference, context: LoadContext, options: Options) -> Checkpoint | None:
    """The checkpoint of a directory or file. None where the path is neither, because another plugin may know it."""
    return open_path(reference, Reader(context, options.allow_pickle or context.trusted))


@hookimpl
def check_compatibility(checkpoints: Sequence[Checkpoint], settings: Settings) -> Iterable[Problem]:
    """Notes of models that are their base, and of directories that hold a second model."""
    return [*same_weights(checkpoints, settings), *beside_adapters(checkpoints)]
