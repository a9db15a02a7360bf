"""The tensors of an adapter, gathered by the module of the base that they change, by the names that PEFT writes."""

import re
from collections.abc import Mapping

from attrs import frozen
from modelmerger import DTYPES, Checkpoint, Problem

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
_ROLE = re.compile(
    r"(.+)\.(lora_[AB]|lora_embedding_[AB]|lora_magnitude_vector|ia3_l|hada_\w+|lokr_\w+|vera_lambda_[bd]"
    r"|token_adapter\.\w+)(\.weight|\.bias)?"
)
_WRAPPED = re.compile(r"\.(base_layer|modules_to_save)(?=\.)")

Keys = Mapping[str, str]
"""The tensors of one module: role (`lora_A`, `ia3_l`, `TRAINED_WHOLE`) → key, the tensor's name in the adapter."""


class MisfitError(Exception):
    """Why the tensors of one module make no change of the base; a sentence without its full stop."""


@frozen(eq=False)
class Gathered:
    """All tensors of an adapter."""

    modules: dict[str, dict[str, str]]
    """Name of a module → its `Keys`; for what was trained whole, name of the tensor."""
    problems: list[Problem]
    """Tensors that belong to no module."""


def gathered(adapter: Checkpoint, kind: str) -> Gathered:
    """The tensors by module. `kind`: of the adapter, as `AdapterConfig.kind`."""
    modules: dict[str, dict[str, str]] = {}
    problems = []
    for key, info in adapter.tensors.items():
        if DTYPES[info.dtype].family != "float":
            problems.append(Problem(f"is {info.dtype}, and only floating point is merged.", adapter.place, key))
        elif kind == "VERA" and key in PROJECTIONS:
            continue
        elif not key.startswith(PREFIX):
            problems.append(unmatched(adapter, key, f"does not begin with {PREFIX!r}"))
        elif found := _ROLE.fullmatch(key.removeprefix(PREFIX)):
            modules.setdefault(found[1], {})[found[2] + (found[3] if found[3] == ".bias" else "")] = key
        else:
            modules.setdefault(_WRAPPED.sub("", key.removeprefix(PREFIX)), {})[TRAINED_WHOLE] = key
    return Gathered(modules, problems)


def unmatched(adapter: Checkpoint, key: str, reason: str) -> Problem:
    """The problem of a tensor that makes no change of the base."""
    return Problem(f"{reason}.", adapter.place, key)


def endings(name: str) -> list[str]:
    """The dotted name, and what is left of it without its first part, its first two and so on."""
    return [name[start:] for start in (0, *(dot.end() for dot in re.finditer(r"\.", name)))]


def leaf(name: str) -> str:
    """The last part of a dotted name."""
    return name.rpartition(".")[2]
