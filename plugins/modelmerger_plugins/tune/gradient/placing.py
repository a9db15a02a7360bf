"""Where merged tensors go in a model of transformers, which joins some of them as it loads them, such as experts."""

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

import torch
from attrs import frozen
from modelmerger import ConfigError
from torch import Tensor
from torch.nn import Module

from modelmerger_plugins.tune.gradient.combining import combined

if TYPE_CHECKING:
    from modelmerger_plugins.tune.gradient.sources import Source

INSTEAD = "Set search.method to gap, tpe or cma, which need no gradient"
_STACKED, _LAID = "MergeModulelist", "Concatenate"
"""What transformers calls its ways to make one tensor of several: a new dimension, or one that they have."""


@frozen(eq=False)
class Placed:
    """A parameter of the model, and what it is made of."""

    groups: Sequence[Sequence["Source"]]
    """Merged tensors; those of a group are joined with each other first."""
    joins: Sequence[tuple[str, int]] = ()
    """How they are joined, and along which dimension."""

    @property
    def sources(self) -> "list[Source]":
        """The merged tensors in their order."""
        return [source for group in self.groups for source in group]

    @property
    def is_alone(self) -> bool:
        """Whether it is one merged tensor as it is."""
        return len(self.sources) == 1 and not self.joins

    @property
    def only(self) -> "Source":
        """The one merged tensor that it is. Raises `ConfigError` where it is several."""
        first = self.sources[0]
        if not self.is_alone:
            raise ConfigError(f"'{first.name}' is a part of a matrix of the vocabulary. {INSTEAD}.")
        return first

    def weight(self, coefficients: Sequence[Tensor]) -> Tensor:
        """The parameter. coefficients: as `Source` has them, of each of the sources."""
        return self.joined([combined(own, one) for own, one in zip(coefficients, self.sources, strict=True)])

    def joined(self, tensors: Sequence[Tensor]) -> Tensor:
        """One tensor of those of the sources."""
        waiting = iter(tensors)
        groups = [[next(waiting) for _ in group] for group in self.groups]
        for how, dim in self.joins:
            if how == _STACKED:
                groups = [[torch.stack(group, dim)] for group in groups]
            else:
                groups = [[torch.cat([one for group in groups for one in group], dim)]]
        ((found,),) = groups
        return found


def placed(model: Module, sources: "Mapping[str, Source]") -> dict[str, Placed]:
    """What each parameter is made of, by its name. Raises `ConfigError` where the model has one of nothing."""
    parameters, prefix = dict(model.named_parameters()), prefix_of(getattr(model, "base_model_prefix", ""))
    found: dict[str, Placed] = {}
    others: dict[str, Source] = {}
    for name, source in sources.items():
        place = next((one for one in (name, prefix + name) if one in parameters), None)
        if place is not None and tuple(parameters[place].shape) == source.shape:
            found[place] = Placed([[source]])
        else:
            others[name] = source
    missing = {name: tuple(one.shape) for name, one in parameters.items() if name not in found}
    if missing and others:
        found |= _converted(model, others, missing, prefix)
    if lacking := [name for name in parameters if name not in found]:
        raise ConfigError(f"no tensor of the models is '{lacking[0]}' of {type(model).__name__}. {INSTEAD}.")
    return found


def prefix_of(name: str) -> str:
    """The beginning of the names of what is in a module."""
    return f"{name}." if name else ""


def _converted(
    model: Module, sources: "Mapping[str, Source]", wanted: Mapping[str, tuple[int, ...]], prefix: str
) -> dict[str, Placed]:
    """Parameters that transformers joins of tensors of files, or has under another name, as it says itself."""
    entries = _conversions(model)
    groups: dict[str, dict[str | None, list[Source]]] = {}
    converters: dict[str, Any] = {}
    for name in sorted(sources, key=_naturally):
        renamed, converter, pattern = _renamed(name, entries)
        place = next((one for one in (renamed, prefix + renamed) if one in wanted), None)
        if place is not None:
            groups.setdefault(place, {}).setdefault(pattern, []).append(sources[name])
            converters[place] = converter
    found = {}
    for place, own in groups.items():
        made = _joining(converters[place], own)
        if made is not None and _shape(made) == wanted[place]:
            found[place] = made
    return found


def _conversions(model: Module) -> list[Any]:
    """What transformers does to names and tensors of files, in its order; nothing where it does not say."""
    try:
        from transformers.conversion_mapping import get_model_conversion_mapping
    except ImportError:
        return []
    return list(get_model_conversion_mapping(cast("Any", model)))


def _renamed(name: str, entries: Sequence[Any]) -> tuple[str, Any, str | None]:
    """The name in the model, and what makes its parameter of several tensors, if anything does, with its pattern."""
    for entry in entries:
        if not hasattr(entry, "operations"):
            name, _ = entry.rename_source_key(name)
    for entry in entries:
        if hasattr(entry, "operations"):
            renamed, pattern = entry.rename_source_key(name)
            if pattern is not None:
                return renamed, entry, pattern
    return name, None, None


def _joining(converter: Any, groups: "Mapping[str | None, Sequence[Source]]") -> Placed | None:
    """The parameter of these tensors; None where they become it in a way that is not known here."""
    if converter is None:
        return Placed(list(groups.values()))
    joins = [(type(one).__name__, getattr(one, "dim", 0)) for one in converter.operations]
    known = all(how in (_STACKED, _LAID) for how, _ in joins)
    return Placed([groups[one] for one in converter.source_patterns if one in groups], joins) if known else None


def _shape(made: Placed) -> tuple[int, ...] | None:
    try:
        return tuple(made.joined([torch.empty(source.shape, device="meta") for source in made.sources]).shape)
    except (RuntimeError, ValueError):  # of tensors that do not go together
        return None


def _naturally(name: str) -> list[tuple[int, str]]:
    """Sorts expert 10 behind expert 9."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name)]
