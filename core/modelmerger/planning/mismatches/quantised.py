"""Which tensors hold quantised weights, by config and by what they look like; and which integers are only counters."""

from collections.abc import Mapping

from modelmerger.values.checkpoint import Checkpoint, TensorInfo
from modelmerger.values.dtypes import DTYPES
from modelmerger.values.errors import Problem
from modelmerger.values.text import amount

UNNAMED = "no quantization_config"
"""What stands for the scheme of weights that look quantised where no config names one."""
SCALES = ("_scale", "_scale_inv", ".scale")
"""What the name of a weight's scale adds to its own."""
SCALES_BESIDE = ("scale", "scales", "scale_inv", "scale_weight")
"""How a scale is called that lies beside `weight`."""
MOST_BITS = 32
"""Of integers that hold quantised numbers; wider ones are positions and counters."""
BUFFERS = ("bias", "mask", "index", "ids")
"""How the last part of a name ends that is a matrix of integers and no weight."""


def quantised_tensors(tensors: Mapping[str, TensorInfo]) -> list[str]:
    """The names of tensors that look quantised, whatever a config says.

    They are matrices of integers of up to 32 bits, integers that are called weights, numbers of less than a byte, and
    float8 beside scales.
    """
    return [name for name, info in tensors.items() if _looks_quantised(name, info, tensors)]


def quantisation_scheme(checkpoint: Checkpoint) -> str:
    """The quantisation scheme of the model's weights, as its config names it; empty where they are not quantised.

    A config that names one is not believed where all weights are plain floats.
    """
    config = (checkpoint.donor.config or {}).get("quantization_config")
    if isinstance(config, Mapping):
        found = any(_may_be_quantised(info) for info in checkpoint.tensors.values())
        return str(config.get("quant_method") or "an unnamed scheme") if found else ""
    return UNNAMED if quantised_tensors(checkpoint.tensors) else ""


def quantised_weights(checkpoint: Checkpoint) -> str:
    """The beginning of a sentence about the weights of a quantised model, up to what can be done with them."""
    scheme = quantisation_scheme(checkpoint)
    if scheme != UNNAMED:
        return f"holds quantised weights ({scheme}), which can only be taken over"
    names = quantised_tensors(checkpoint.tensors)
    dtypes = sorted({checkpoint.tensors[name].dtype for name in names})
    looks = f"{amount(len(names), 'tensor')} {'looks' if len(names) == 1 else 'look'} quantised ({', '.join(dtypes)})"
    return f"{looks} without a quantization_config: such weights can only be taken over"


def quantised_problem(checkpoint: Checkpoint) -> Problem:
    """That a model is quantised, which is why it does not fit."""
    message = f"{quantised_weights(checkpoint)}, from models with equal bits. Dequantise it first."
    return Problem(message, checkpoint.place)


def is_counter(name: str, info: TensorInfo) -> bool:
    """Whether this is a counter, a row of positions or a mask, in a model that is not quantised, and so no weight."""
    is_whole = DTYPES[info.dtype].family in ("integer", "bool")
    return is_whole and "weight" not in _last_part(name) and not _looks_quantised(name, info, {})


def _looks_quantised(name: str, info: TensorInfo, tensors: Mapping[str, TensorInfo]) -> bool:
    family = DTYPES[info.dtype].family
    if family == "float":
        return info.dtype.startswith("F8") and _has_scale(name, tensors)
    if family != "integer":
        return family == "packed"
    last = _last_part(name)
    if "weight" in last:
        return last != "weight" or len(info.shape) > 1
    is_matrix = sum(size > 1 for size in info.shape) > 1
    return is_matrix and DTYPES[info.dtype].bits <= MOST_BITS and not last.endswith(BUFFERS)


def _may_be_quantised(info: TensorInfo) -> bool:
    dtype = DTYPES[info.dtype]
    whole = dtype.family == "integer" and dtype.bits <= MOST_BITS
    return whole or dtype.family == "packed" or info.dtype.startswith("F8")


def _has_scale(name: str, tensors: Mapping[str, TensorInfo]) -> bool:
    own = any(name + end in tensors for end in SCALES)
    beside = name.endswith("weight") and any(name.removesuffix("weight") + word in tensors for word in SCALES_BESIDE)
    return own or beside


def _last_part(name: str) -> str:
    return name.rpartition(".")[2]
