"""LoRA and DoRA: factors of linear layers, convolutions and embeddings, against the base's shapes."""

from collections.abc import Iterator

from modelmerger_plugins.peft_adapters.changes.change import Change
from modelmerger_plugins.peft_adapters.changes.low_rank import Decomposed, LowRank
from modelmerger_plugins.peft_adapters.changes.vectors import Shifted
from modelmerger_plugins.peft_adapters.reading.misfits import MisfitError
from modelmerger_plugins.peft_adapters.reading.modules import Keys
from modelmerger_plugins.peft_adapters.reading.orientation import Orientation
from modelmerger_plugins.peft_adapters.reading.pairing import Pairing, Shape

OF_EMBEDDINGS = {"lora_embedding_A", "lora_embedding_B", "lora_magnitude_vector"}
"""The roles that an embedding's tensors may have."""
OF_LAYERS = {"lora_A", "lora_B", "lora_B.bias", "lora_magnitude_vector"}
"""The roles that another layer's tensors may have."""


def of_embedding(pair: Pairing, module: str, keys: Keys) -> Iterator[tuple[str, Change]]:
    """Base tensor and change of an embedding, which stores its matrix transposed. Raises `MisfitError`."""
    tensor = pair.in_base(f"{module}.weight")
    a, b = pair.shape(keys["lora_embedding_A"]), pair.shape(keys["lora_embedding_B"])
    shape = pair.shape_in_base(tensor)
    if len(a) != 2 or len(b) != 2:
        raise MisfitError(f"has factors of the shapes {list(b)} and {list(a)}, where two matrices are due")
    if shape != (a[1], b[0]):
        raise pair.other_shape(tensor, (a[1], b[0]), f"is for an embedding of shape {[a[1], b[0]]}")
    scale = pair.scale(module, a[0], b[1])
    change = LowRank(keys["lora_embedding_A"], keys["lora_embedding_B"], scale, swapped=True)
    yield tensor, _with_magnitudes(pair, change, keys, shape)


def of_layer(pair: Pairing, orientation: Orientation, module: str, keys: Keys) -> Iterator[tuple[str, Change]]:
    """Base tensors and changes of a linear layer or a convolution: of its weight, and with `lora_bias` of its bias.

    Raises `MisfitError`.
    """
    tensor = pair.in_base(f"{module}.weight")
    a, b = pair.shape(keys["lora_A"]), pair.shape(keys["lora_B"])
    shape = pair.shape_in_base(tensor)
    if len(a) != len(b) or len(a) < 2 or len(a) != len(shape):
        raise MisfitError(f"has {len(a)} dimensions, and '{pair.base.name}' has shape {list(shape)}")
    swapped = False
    if len(a) == 2:
        swapped = orientation.swapped(module, tensor, b[0], a[1])
    elif (b[0], *a[1:]) != shape or set(b[2:]) != {1}:
        raise pair.other_shape(tensor, (b[0], *a[1:]), f"is for a tensor of shape {[b[0], *a[1:]]}")
    scale = pair.scale(module, a[0], b[1])
    yield tensor, _with_magnitudes(pair, LowRank(keys["lora_A"], keys["lora_B"], scale, swapped), keys, shape)
    if key := keys.get("lora_B.bias"):
        bias = pair.in_base(f"{module}.bias")
        if (there := pair.shape_in_base(bias)) != pair.shape(key) or there != shape[swapped:][:1]:
            raise MisfitError(f"has shape {list(pair.shape(key))}, and the bias of the base {list(there)}")
        yield bias, Shifted(key, scale)


def _with_magnitudes(pair: Pairing, change: LowRank, keys: Keys, shape: Shape) -> Change:
    """DoRA's change where the module has magnitudes, else LoRA's."""
    key = keys.get("lora_magnitude_vector")
    if (key is not None) != pair.config.flag("use_dora"):
        raise MisfitError("contradicts use_dora in the adapter's config")
    if key is None:
        return change
    wanted = shape[-1] if change.swapped else shape[0]
    if pair.elements(key) != wanted:
        raise MisfitError(f"has {pair.elements(key)} magnitudes, where {wanted} are due")
    return Decomposed(change, key)
