"""A view of some layers of a model: in another order, some left out, some several times."""

from collections.abc import Mapping, Sequence
from string import digits
from typing import Any

from modelmerger.planning.layers.layer_keys import COUNTS
from modelmerger.planning.layers.stacked_config import stacked_config
from modelmerger.planning.tensor_names import layer_of
from modelmerger.planning.views import CheckpointView
from modelmerger.values.checkpoint import Checkpoint
from modelmerger.values.errors import InputError, Problem


class LayerView(CheckpointView):
    """Shows layers of a checkpoint, numbered anew from 0, behind all its other tensors.

    Its config.json, unless another is given, says how many layers there are, and what it says of each of them.

    ```python
    LayerView(checkpoint, [0, 1, 2, 2, 3])     # layer 2 twice: layers 2 and 3 of the view are one and the same
    ```
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        layers: Sequence[int],
        prefix: str | None = None,
        config: Mapping[str, Any] | None = None,
    ) -> None:
        """layers: for each layer of the view, the number of the checkpoint's layer that it shows.

        prefix: what stands before the number in names of tensors ("model.layers"); None where all layers have the same,
        or where one stack alone has as many layers as the config says.
        config: as for `CheckpointView`. Raises `InputError` where the checkpoint does not have such a layer, where the
        prefix is needed, or where its config cannot say it of these layers, and `ValueError` for no layers.
        """
        if not layers:
            raise ValueError("a view of layers needs at least one")
        stacks = _stacks(checkpoint)
        prefix = _only_stack(checkpoint, stacks) if prefix is None else prefix
        by_layer = stacks.get(prefix, {})
        if missing := [layer for layer in layers if layer not in by_layer]:
            there = f"{len(by_layer)}, from {min(by_layer)} to {max(by_layer)}" if by_layer else "none"
            message = f"has no layer {missing[0]} of {prefix!r}; its layers are {there}."
            raise InputError(Problem(message, checkpoint.place))
        in_layers = {name for names in by_layer.values() for name in names}
        names = {name: name for name in checkpoint.tensors if name not in in_layers}
        start = f"{prefix}." if prefix else ""
        for number, layer in enumerate(layers):
            rests = {name[len(start) :].lstrip(digits): name for name in by_layer[layer]}
            names |= {f"{start}{number}{rest}": name for rest, name in rests.items()}
        self.layers = tuple(layers)
        """For each layer of the view, the layer of the checkpoint that it shows."""
        if config is None and checkpoint.donor.config is not None:
            of_this = checkpoint.donor.config
            config = stacked_config(of_this, [(of_this, layers)], checkpoint.place)
        super().__init__(checkpoint, names, config)


def _stacks(checkpoint: Checkpoint) -> dict[str, dict[int, list[str]]]:
    """Prefix → number of a layer → its tensors, in the order of the checkpoint."""
    found: dict[str, dict[int, list[str]]] = {}
    for name in checkpoint.tensors:
        if (layer := layer_of(name)) is not None:
            found.setdefault(layer[0], {}).setdefault(layer[1], []).append(name)
    return found


def _only_stack(checkpoint: Checkpoint, stacks: Mapping[str, Any]) -> str:
    """The only stack, or the only one that has as many layers as the config says."""
    config = checkpoint.donor.config or {}
    text = config.get("text_config")
    told = [level[key] for level in (config, text) if isinstance(level, Mapping) for key in COUNTS if key in level]
    fitting = stacks if len(stacks) == 1 else [prefix for prefix, layers in stacks.items() if len(layers) in told]
    if len(fitting) == 1:
        return next(iter(fitting))
    found = f"layers of {', '.join(map(repr, stacks))}: say which are meant" if stacks else "no layers"
    raise InputError(Problem(f"has {found}.", checkpoint.place))
