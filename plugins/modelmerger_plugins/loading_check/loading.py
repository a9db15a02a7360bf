"""What a transformers class takes of some tensors: names and shapes as its loading would match them, and no numbers."""

import contextlib
import json
import tempfile
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
import transformers
from attrs import frozen
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.core_model_loading import WeightConverter, WeightRenaming, dot_natural_key, rename_source_key

from modelmerger_plugins.loading_check.conversions import Conversions, Shape


@frozen
class Loading:
    """How the tensors of a file and those of a class match."""

    missing: Sequence[str]
    """Tensors of the class that nothing is loaded into, by their names in the class."""
    unexpected: Mapping[str, str]
    """Tensors that the class has no place for: the names that they would have in the class, and those in the file."""
    misshaped: Mapping[str, tuple[Shape, Shape]]
    """Tensors whose shape is another, by their names in the class: the shape to be loaded, and that of the class."""
    vital: frozenset[str]
    """Those of `missing` without which there is no model: of layers, and of the embeddings of input and output."""
    places: frozenset[str]
    """The names of all tensors of the class."""
    stacks: frozenset[str]
    """The names of its lists of layers."""

    @property
    def fits(self) -> bool:
        """Whether the class loads the tensors without a word."""
        return not (self.missing or self.unexpected or self.misshaped)


def build(architecture: str, config: Mapping[str, Any]) -> Any:
    """The model of a class and a config without memory for its numbers, as transformers would begin to load it."""
    found = getattr(transformers, architecture)
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "config.json").write_text(json.dumps(config), encoding="utf-8")
        made = found.config_class.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    with torch.device("meta"):
        return found(made)


def match(model: Any, shapes: Mapping[str, Shape]) -> Loading:
    """How tensors of these shapes would be loaded. model: made by `build`."""
    state = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    transforms = get_model_conversion_mapping(model)
    renamings = [one for one in transforms if isinstance(one, WeightRenaming)]
    converters = [one for one in transforms if isinstance(one, WeightConverter)]
    prefix = model.base_model_prefix
    loaded: dict[str, Shape] = {}
    unexpected: dict[str, str] = {}
    gathered: dict[str, list[tuple[str, str]]] = {}
    for name in sorted(shapes, key=dot_natural_key):
        place, pattern = rename_source_key(name, renamings, converters, prefix, state)
        if place not in state and name in state:
            place, pattern = rename_source_key(name, [], [], prefix, state)
        if place not in state:
            unexpected[place] = name
        elif pattern is not None:
            gathered.setdefault(place, []).append((pattern, name))
        else:
            loaded.setdefault(place, shapes[name])
    by_pattern = {pattern: converter for converter in converters for pattern in converter.source_patterns}
    conversions = Conversions(model, state, by_pattern)
    for place, sources in gathered.items():
        for made, shape in conversions.made(place, [(pattern, shapes[name]) for pattern, name in sources]):
            if made in state:
                loaded[made] = shape
            else:
                unexpected[made] = sources[0][1]
    stacks = frozenset(name for name, module in model.named_modules() if isinstance(module, torch.nn.ModuleList))
    known = SimpleNamespace(missing_keys=_unfilled(model, state, loaded), unexpected_keys=set(unexpected))
    model._adjust_missing_and_unexpected_keys(known)  # noqa: SLF001 (what its class does not mind)
    return Loading(
        missing=[name for name in state if name in known.missing_keys],
        unexpected={place: name for place, name in unexpected.items() if place in known.unexpected_keys},
        misshaped={name: (shape, state[name]) for name, shape in loaded.items() if shape != state[name]},
        vital=_vital(model, stacks) & known.missing_keys,
        places=frozenset(state),
        stacks=stacks,
    )


def _unfilled(model: Any, state: Iterable[str], loaded: Container[str]) -> set[str]:
    """The tensors of a model that nothing is loaded into, and that are tied to none into which something is."""
    groups: dict[str, set[str]] = {}
    for target, source in model.all_tied_weights_keys.items():
        groups.setdefault(source, {source}).add(target)
    tied = {name for group in groups.values() if any(name in loaded for name in group) for name in group}
    return {name for name in state if name not in loaded and name not in tied}


def _vital(model: Any, stacks: Iterable[str]) -> set[str]:
    """The names of the parameters without which there is no model."""
    inside = tuple(f"{stack}." for stack in stacks)
    embeddings = {id(parameter) for module in _embeddings(model) for parameter in module.parameters()}
    return {
        name
        for name, parameter in model.named_parameters(remove_duplicate=False)
        if name.startswith(inside) or id(parameter) in embeddings
    }


def _embeddings(model: Any) -> Iterator[torch.nn.Module]:
    """The embeddings of input and output, as far as the class has them."""
    for find in (model.get_input_embeddings, model.get_output_embeddings):
        with contextlib.suppress(NotImplementedError, AttributeError):
            if isinstance(found := find(), torch.nn.Module):
                yield found
