"""What is converted once for all layers that are alike, and again where it would not fit."""

from types import SimpleNamespace
from typing import Any

import torch
from modelmerger_plugins.loading_check.conversions import Conversions


class Halving:
    """A converter that makes two tensors of one, the second as long as the model wants it."""

    def __init__(self, calls: list[str], state: dict[str, tuple[int, ...]]) -> None:
        self.calls, self.state = calls, state

    def __deepcopy__(self, _: object) -> "Halving":
        return self

    def add_tensor(self, *_: object) -> None:
        """Its shape does not matter."""

    def convert(self, place: str, **_: object) -> dict[str, torch.Tensor]:
        self.calls.append(place)
        second = place.replace("first", "second")
        return {place: torch.empty(self.state[place]), second: torch.empty(self.state[second])}


def made(second: dict[int, int]) -> tuple[list[str], list[list[Any]]]:
    """The places that were converted, and what was made. second: layer → length of its second tensor."""
    state: dict[str, tuple[int, ...]] = {f"layers.{layer}.first.0.w": (2,) for layer in second}
    state |= {f"layers.{layer}.second.0.w": (length,) for layer, length in second.items()}
    calls: list[str] = []
    conversions = Conversions(SimpleNamespace(config=None), state, {"both": Halving(calls, state)})
    return calls, [conversions.made(f"layers.{layer}.first.0.w", [("both", (9,))]) for layer in second]


def test_equal_layers_are_converted_once_under_their_own_numbers() -> None:
    calls, found = made({0: 3, 1: 3, 12: 3})
    assert calls == ["layers.0.first.0.w"]
    assert found[2] == [("layers.12.first.0.w", (2,)), ("layers.12.second.0.w", (3,))]


def test_a_layer_that_the_first_does_not_stand_for_is_converted_itself() -> None:
    calls, found = made({0: 3, 1: 4})
    assert calls == ["layers.0.first.0.w", "layers.1.first.0.w"]
    assert found[1] == [("layers.1.first.0.w", (2,)), ("layers.1.second.0.w", (4,))]
