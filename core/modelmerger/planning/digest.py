"""The name of a plan: a digest of everything that decides the output's bytes."""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from blake3 import blake3

from modelmerger.hooks.assembly import Hooks
from modelmerger.hooks.faults import reading_fault
from modelmerger.inputs.installed.versions import version_of
from modelmerger.values.checkpoint import Checkpoint
from modelmerger.values.composition import Composition
from modelmerger.values.errors import MergeError
from modelmerger.values.layout import Layout
from modelmerger.values.settings import Settings


def plan_digest(decides: Mapping[str, str]) -> str:
    """The digest of a plan from those of its parts: 64 hexadecimal digits."""
    return blake3(json.dumps(decides, sort_keys=True).encode()).hexdigest()


def deciding_parts(
    hooks: Hooks,
    settings: Settings,
    checkpoints: Sequence[Checkpoint],
    layout: Layout,
    composition: Composition | None = None,
) -> dict[str, str]:
    """Digests of config, inputs as they are, plugins, torch and layout, by name. Imports no torch."""
    options = settings.options
    models = zip(settings.models, settings.model_options, strict=True)
    decisive = {
        "strategy": settings.strategy,
        "models": [[m.path, repr(m.weight), m.name, repr(told)] for m, told in models],
        "base": settings.base_model,
        "options": [options.torch_dtype, options.seed, options.allow_nonfinite, repr(settings.strategy_options)],
        "arithmetic": [options.torch_compile, repr(options.device_map)],
        "taken": [options.missing_tensors, options.merge_embeddings, options.merge_lm_head],
        "sections": [[name, repr(value)] for name, value in sorted(settings.sections.items())],
        "observers": sorted(hooks.observers.wanted(settings)),  # what they find is in the manifest
        "options of plugins": [[name, repr(value)] for name, value in sorted(settings.plugin_options.items())],
        "plugins": [provider.identity for provider in hooks.providers],
        "strategy source": hooks.strategy.fingerprint,
        "torch": version_of("torch"),
        "inputs": list(map(_input, checkpoints)),
        "composition": [_input(composition.checkpoint), composition.writes] if composition else None,
    }
    parts = {name: blake3(json.dumps(part, sort_keys=True, default=repr).encode()) for name, part in decisive.items()}
    parts["layout"] = blake3()
    for part in _layout_parts(layout):
        parts["layout"].update(part)
    return {name: hasher.hexdigest() for name, hasher in parts.items()}


def _input(checkpoint: Checkpoint) -> list[Any]:
    """What tells a model from others: its files as they are, and what it is seen as.

    The number of a file's device is left out: a mount or a machine has its own for the same files.
    """
    return [
        [[file.path, file.inode, file.size, file.mtime_ns, file.ctime_ns] for file in checkpoint.files],
        [[name, info.dtype, info.shape] for name, info in checkpoint.tensors.items()],
        sorted(checkpoint.aliases.items()),
        _content(checkpoint),
        checkpoint.donor.config,
        checkpoint.donor.generation,
    ]


def _content(checkpoint: Checkpoint) -> str:
    try:
        return checkpoint.content
    except (MergeError, MemoryError):
        raise
    except Exception as error:
        raise reading_fault(checkpoint, error) from error


def _layout_parts(layout: Layout) -> Iterable[bytes]:
    for file in layout.files:
        yield f"\n{file.name} {file.size}\n".encode()
        for placement in file.placements:
            tensor = placement.tensor
            yield f"{placement.offset} {tensor.dtype} {tensor.shape} {tensor.name!r}\n".encode()
        for offset, content in file.fixed:
            yield f"{offset} ".encode() + content
    for name, content in layout.documents.items():
        yield f"\n{name}\n".encode() + content
