"""What transformers makes of the tensors that it converts as it loads them: joined experts, split projections."""

import re
from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import Any

import torch
from attrs import field, frozen

Shape = tuple[int, ...]
NUMBER = re.compile(r"(?<![^.])[0-9]+(?![^.])")
"""A part of a name that is a number: of a layer, or of an expert."""
Made = list[tuple[str, Shape]]
"""Names and shapes."""


@frozen(eq=False)
class Conversions:
    """The conversions of a model. What is alike but for the numbers of its layers is converted once."""

    model: Any
    """Built without memory."""
    state: Mapping[str, Shape]
    """The shapes of its tensors."""
    converters: Mapping[str, Any]
    """transformers' converters, by the patterns of names that they convert."""
    _known: dict[Any, tuple[list[str], Made]] = field(factory=dict)

    def made(self, place: str, sources: Sequence[tuple[str, Shape]]) -> Made:
        """What is made of some tensors; nothing where they cannot be converted.

        place: the name in the model of what they become, or of the first of it. sources: the pattern and the shape of
        each, in order.
        """
        numbers = NUMBER.findall(place)
        key = NUMBER.sub("#", place), self.state.get(place), tuple(sources)
        if key in self._known:
            of, found = self._known[key]
            renumbered = [(_renumbered(name, of, numbers), shape) for name, shape in found]
            if all(self.state.get(name) == shape for name, shape in renumbered):
                return renumbered
        found = self._convert(place, sources)
        self._known[key] = numbers, found
        return found

    def _convert(self, place: str, sources: Sequence[tuple[str, Shape]]) -> Made:
        converter = deepcopy(self.converters[sources[0][0]])
        tensors = {shape: torch.empty(shape, device="meta") for _, shape in sources}
        for number, (pattern, shape) in enumerate(sources):
            converter.add_tensor(place, str(number), pattern, tensors[shape])
        try:
            made = converter.convert(place, model=self.model, config=self.model.config)
        except Exception:  # whatever an operation has to say of shapes that do not fit it
            return []
        single = {name: value[0] if isinstance(value, list) else value for name, value in made.items()}
        return [(name, tuple(value.shape)) for name, value in single.items()]


def _renumbered(name: str, numbers: Sequence[str], others: Sequence[str]) -> str:
    """The name with other numbers in place of its first ones, if those are these."""
    found = list(NUMBER.finditer(name))[: len(numbers)]
    if [match[0] for match in found] != list(numbers):
        return name
    for match, other in reversed(list(zip(found, others, strict=True))):
        name = name[: match.start()] + other + name[match.end() :]
    return name
