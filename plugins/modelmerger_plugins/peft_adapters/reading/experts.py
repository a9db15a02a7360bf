"""Where the files of a base hold a parameter of experts: in one tensor, or in some for each expert."""

import re
from collections.abc import Iterator, Sequence

from attrs import frozen
from modelmerger import Checkpoint, shown

from modelmerger_plugins.peft_adapters.reading.misfits import MisfitError
from modelmerger_plugins.peft_adapters.reading.naming import LAYER
from modelmerger_plugins.peft_adapters.reading.pairing import Pairing
from modelmerger_plugins.peft_adapters.reading.unfit_bases import QUANTISED, RIGHT, is_quantised, quantised

SPLIT = {
    "gate_up_proj": (("gate_proj", "up_proj"), ("w1", "w3")),
    "down_proj": (("down_proj",), ("w2",)),
}
"""What files call the matrices of one expert that transformers joins into one parameter."""
RENAMED = (".mlp.", ".block_sparse_moe.")
"""What transformers calls a module, and what files of Mixtral call it."""

_OF_EXPERT = re.compile(r"(.+)\.\d+\.([^.]+)\.weight")


@frozen
class Holder:
    """A tensor of the base that holds some experts of a parameter."""

    tensor: str
    """Its name."""
    shape: tuple[int, ...]
    """Its shape: (experts, outputs, inputs) or its transpose, or a matrix of one expert's outputs by inputs."""
    experts: range
    """The experts that it holds."""
    first: int
    """Of each expert, the first output that it holds."""
    last: int
    """The output behind the last one; 0: it holds all."""


def holders(pair: Pairing, module: str, parameter: str) -> list[Holder]:
    """What holds a parameter of a module, expert by expert. Raises `MisfitError` where nothing does."""
    base = pair.base
    for parent in _parents(pair, module):
        found = _holders_in(base, parent, parameter)
        names = [holder.tensor for holder in found] or [f"{parent}.{parameter}"]
        if any(is_quantised(base, name) for name in names):
            raise quantised(base, pair.base_key)
        if found:
            return found
    sentence = f"matches nothing: '{base.name}' has no {shown(f'{module}.{parameter}')}, whole or by expert"
    raise MisfitError(sentence, "no parameter", RIGHT)


def has_holders(pair: Pairing, module: str, parameter: str) -> bool:
    """Whether anything holds a parameter of a module, in whatever form."""
    try:
        return bool(holders(pair, module, parameter))
    except MisfitError as misfit:
        return misfit.cause == QUANTISED


def _holders_in(base: Checkpoint, parent: str, parameter: str) -> list[Holder]:
    """What holds a parameter of a module that the file calls `parent`; empty where nothing does."""
    name = f"{parent}.{parameter}"
    whole = base.tensors.get(name)
    if whole is not None and len(whole.shape) in (2, 3):
        experts = whole.shape[0] if len(whole.shape) == 3 else 1
        if experts == 0:
            raise MisfitError(
                f"matches nothing: {shown(name)} of '{base.name}' has shape {list(whole.shape)}, no expert"
            )
        return [Holder(name, whole.shape, range(experts), 0, 0)]
    return next(filter(None, (_by_expert(base, parent, leaves) for leaves in SPLIT.get(parameter, ()))), [])


def has_parameter(base: Checkpoint, end: str) -> bool:
    """Whether a base has a parameter whose name in memory ends so, in one tensor or expert by expert."""
    parameter = end.rpartition(".")[2]
    leaves = {leaf for names in SPLIT.get(parameter, ()) for leaf in names}
    names = list(base.tensors)
    split = [match for match in map(_OF_EXPERT.fullmatch, names) if match and match[2] in leaves]
    names += {f"{match[1]}.{parameter}" for match in split}
    return any(
        f".{name}".replace(*RENAMED[::-1]).endswith(f".{end}") or f".{name}".endswith(f".{end}") for name in names
    )


def _parents(pair: Pairing, module: str) -> Iterator[str]:
    """What the base's file may call a module."""
    weight = pair.names.get(f"{module}.weight", "")
    names = [weight.removesuffix(".weight")] if weight.endswith(".weight") else []
    if (match := LAYER.fullmatch(module)) and match[1] in pair.names:
        names.append(f"{pair.names[match[1]]}.{match[2]}")
    for name in dict.fromkeys([*names, module]):
        yield name
        yield f".{name}.".replace(*RENAMED).strip(".")


def _by_expert(base: Checkpoint, parent: str, leaves: Sequence[str]) -> list[Holder]:
    """What holds the experts, in order, up to the first that is not complete."""
    found: list[Holder] = []
    for expert in range(len(base.tensors)):
        names = [f"{parent}.{expert}.{name}.weight" for name in leaves]
        shapes = [base.tensors[name].shape for name in names if name in base.tensors]
        if len(shapes) < len(names) or any(len(shape) != 2 for shape in shapes):
            break
        first = 0
        for tensor, shape in zip(names, shapes, strict=True):
            found.append(Holder(tensor, shape, range(expert, expert + 1), first, first + shape[0]))
            first += shape[0]
    return found
