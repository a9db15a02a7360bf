"""The tensors of an adapter, gathered by the module of the base that they change, by the names that PEFT writes."""

import re
from collections.abc import Mapping

from modelmerger import DTYPES, Checkpoint

from modelmerger_plugins.peft_adapters.reading.misfits import UNGATHERED, MisfitError, Misfits

PREFIX = "base_model.model."
"""What every key begins with, in front of the name of the base's module."""
BELOW = ".base_layer"
"""What PEFT adds to the name of a module that it wraps in an adapter layer: once for each layer around it."""
PROJECTIONS = ("base_model.vera_A", "base_model.vera_B")
"""The tensors that all layers of a VeRA adapter share."""
TRAINED_WHOLE = "whole"
"""The role of a tensor that replaces the base's."""
TRAINED_ROWS = "token_adapter.trainable_tokens_delta"
"""The role of a tensor that replaces some rows of the base's."""
ROLES = (
    r"lora_[AB]|lora_embedding_[AB]|lora_magnitude_vector|ia3_l|hada_\w+|lokr_\w+|vera_lambda_[bd]|token_adapter\.\w+"
)
"""What a tensor of an adapter layer is called, as a regular expression."""
_ROLE = re.compile(rf"(.+)\.({ROLES})(\.weight|\.bias)?")
_WRAPPED = re.compile(r"\.(base_layer|modules_to_save)(?=\.)")

Keys = Mapping[str, str]
"""The tensors of one module: role (`lora_A`, `ia3_l`, `TRAINED_WHOLE`) → key, the tensor's name in the adapter."""


def gathered(adapter: Checkpoint, kind: str, misfits: Misfits) -> dict[str, dict[str, str]]:
    """The tensors by module: its name → its `Keys`; for what was trained whole, the name of the tensor.

    `kind`: of the adapter, as `AdapterConfig.kind`. Those that belong to no module are added to `misfits`.
    """
    modules: dict[str, dict[str, str]] = {}
    for key, info in adapter.tensors.items():
        if info.shape == (0,):
            misfits.add(_ungathered(), [key])
        elif DTYPES[info.dtype].family != "float":
            misfits.add(MisfitError(f"is {info.dtype}, and only floating point is merged"), [key])
        elif kind == "VERA" and key in PROJECTIONS:
            continue
        elif not key.startswith(PREFIX):
            misfits.add(MisfitError(f"does not begin with {PREFIX!r}"), [key])
        elif found := _ROLE.fullmatch(key.removeprefix(PREFIX)):
            modules.setdefault(found[1], {})[found[2] + (found[3] if found[3] == ".bias" else "")] = key
        else:
            modules.setdefault(_WRAPPED.sub("", key.removeprefix(PREFIX)), {})[TRAINED_WHOLE] = key
    return modules


def name_in_memory(key: str, tensor: str) -> str:
    """What the model in memory calls the tensor of the base that a tensor of an adapter changes.

    `tensor`: what the base's file calls it.
    """
    name = key.removeprefix(PREFIX)
    found = _ROLE.fullmatch(name)
    return f"{found[1]}.{leaf(tensor)}" if found else _WRAPPED.sub("", name)


def endings(name: str) -> list[str]:
    """The dotted name, and what is left of it without its first part, its first two and so on."""
    return [name[start:] for start in (0, *(dot.end() for dot in re.finditer(r"\.", name)))]


def leaf(name: str) -> str:
    """The last part of a dotted name."""
    return name.rpartition(".")[2]


def _ungathered() -> MisfitError:
    return MisfitError(
        "has factors without elements, as DeepSpeed ZeRO-3 saves what it does not gather",
        UNGATHERED,
        "Run zero_to_fp32.py in the checkpoint's directory and save the adapter from what it makes.",
        of_adapter=True,
    )
