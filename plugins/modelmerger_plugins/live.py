"""Opens models in memory: a `torch.nn.Module`, or a mapping of names to tensors, which are read where they are."""

import copy
import sys
from collections import Counter
from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

from attrs import evolve
from blake3 import blake3
from modelmerger import (
    Checkpoint,
    Donor,
    InputError,
    ModelReference,
    Problem,
    TensorInfo,
    dtype_from_torch,
    hookimpl,
    read_json,
    tied_heads,
)

from modelmerger_plugins.adapter_names import holds_adapter
from modelmerger_plugins.names import unwrapped
from modelmerger_plugins.special_floats import MAY_BE_INFINITE

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module

DIGESTED = 16 << 20
"""Bytes that are digested in one go."""


@hookimpl
def load_model(reference: ModelReference) -> Checkpoint | None:
    """The checkpoint of a module or mapping. None for a path."""
    if reference.source is None:
        return None
    place = f"{reference.name} {reference.path}"
    aliases: Mapping[str, str]
    if isinstance(reference.source, Mapping):
        _check(reference.source, place)
        if holds := holds_adapter(reference.source):
            raise InputError(Problem(f"{holds} Give the directory that its save_pretrained writes.", place))
        tensors, aliases, donor = *_without_tied_heads(reference.source), Donor()
    else:
        tensors, aliases, donor = _contents(_unwrapped(reference.source), place)
    if not tensors:
        raise InputError(Problem("holds no tensor. Is this the right object?", place))
    return LiveCheckpoint(reference.name, place, tensors, aliases, donor)


class LiveCheckpoint(Checkpoint):
    """Tensors in memory, without a copy: if they are changed during the merge, it may get old and new numbers."""

    def __init__(
        self, name: str, place: str, tensors: Mapping[str, "Tensor"], aliases: Mapping[str, str], donor: Donor
    ) -> None:
        self.name = name
        self.tensors = {
            key: TensorInfo(dtype_from_torch(value.dtype), tuple(value.shape)) for key, value in tensors.items()
        }
        self.aliases = aliases
        self.files = ()
        self.donor = donor
        self._place = place
        self._values = {key: value.detach() for key, value in tensors.items()}

    @property
    def place(self) -> str:
        """The name of the model and its kind, for messages."""
        return self._place

    @cached_property
    def content(self) -> str:
        """A digest of all names, shapes, dtypes and numbers, as they are when this is first asked for."""
        hasher = blake3(max_threads=blake3.AUTO)
        for name, info in self.tensors.items():
            hasher.update(repr((name, info)).encode(errors="surrogatepass"))
            most = DIGESTED // self._values[name].element_size()
            for start in range(0, info.elements, most):
                stop = min(info.elements, start + most)
                content = bytearray(info.span(start, stop)[1])
                self.read(name, start, stop, memoryview(content))
                hasher.update(content)
        return hasher.hexdigest()

    def read(self, tensor: str, start: int, stop: int, buffer: memoryview) -> None:
        """Copies the elements into the buffer."""
        import torch

        if stop > start:
            source = self._values[tensor]
            _copy(source, start, stop, torch.frombuffer(buffer, dtype=source.dtype, count=stop - start))


def _copy(source: "Tensor", start: int, stop: int, out: "Tensor") -> None:
    """Copies elements of the flattened tensor into a vector. A tensor that is not contiguous is copied row by row."""
    if source.is_contiguous() or source.dim() < 2:
        out.copy_(source.reshape(-1)[start:stop])
        return
    row = source[0].numel()
    first, last = -(-start // row), stop // row
    if first > last:  # within one row
        _copy(source[last], start - last * row, stop - last * row, out)
        return
    head, tail = first * row - start, stop - last * row
    if head:
        _copy(source[first - 1], row - head, row, out[:head])
    if last > first:
        out[head : len(out) - tail].view(last - first, *source.shape[1:]).copy_(source[first:last])
    if tail:
        _copy(source[last], 0, tail, out[len(out) - tail :])


def _contents(module: "Module", place: str) -> tuple[Mapping[str, "Tensor"], Mapping[str, str], Donor]:
    """The tensors of a module by the names that its `save_pretrained` writes, names of tied ones, and its configs."""
    _check_kind(module, place)
    _check(module.state_dict(keep_vars=True), place)
    state = dict(module.state_dict())
    transformers = sys.modules.get("transformers")  # imported already if the module is one of its models
    if transformers is None or not isinstance(module, transformers.PreTrainedModel):
        inner = None if transformers is None else _wrapped(module, transformers.PreTrainedModel)
        return *_without_tied_heads(state), Donor() if inner is None else _donor(inner)
    from transformers.core_model_loading import revert_weight_conversion
    from transformers.modeling_utils import remove_tied_weights_from_state_dict

    ignored = module._keys_to_ignore_on_save or ()  # noqa: SLF001 (as save_pretrained does)
    kept = {name: tensor for name, tensor in state.items() if name not in ignored}
    try:
        once = remove_tied_weights_from_state_dict(dict(kept), module)
    except RuntimeError as error:
        message = (
            "holds tensors that share memory and that its class does not tie. "
            "Untie them: save_pretrained refuses such a model too."
        )
        raise InputError(Problem(message, place)) from error
    tensors = revert_weight_conversion(module, dict(once))
    aliases = {name: tied for name, tied in _aliases(kept, once).items() if tied in tensors}
    return tensors, aliases, _donor(module)


def _unwrapped(module: "Module") -> "Module":
    """The module inside the wrappers of torch.compile, of data parallelism, and of averages over a training."""
    import torch

    averaged = sys.modules.get("torch.optim.swa_utils")  # imported already if the module is one of its models
    wrappers = (torch.nn.DataParallel, torch.nn.parallel.DistributedDataParallel)
    wrappers += (averaged.AveragedModel,) if averaged is not None else ()
    while True:
        inner = module.module if isinstance(module, wrappers) else getattr(module, "_orig_mod", None)
        if not isinstance(inner, torch.nn.Module):
            return module
        module = inner


def _wrapped(module: "Module", kind: "type[Module]") -> "Module | None":
    """The model in a wrapper, such as FSDP, whose own state dict has to be asked for the tensors; None in others."""
    for name, inner in module.named_modules():
        if isinstance(inner, kind):
            return inner if unwrapped([f"{name}.weight"]).names[f"{name}.weight"] == "weight" else None
    return None


def _donor(module: Any) -> Donor:
    """The configs that `save_pretrained` would write."""
    config = copy.deepcopy(module.config)
    config.architectures = [type(module).__name__]
    config.dtype = str(module.dtype).removeprefix("torch.")
    generation = module.generation_config.to_json_string() if module.can_generate() else "null"
    texts = config.to_json_string(), generation
    return Donor(None, *(read_json(text, type(module).__name__, infinite=MAY_BE_INFINITE) for text in texts))


def _check_kind(module: "Module", place: str) -> None:
    inside = list(module.modules())
    if any(getattr(one, "peft_config", None) or getattr(one, "_hf_peft_config_loaded", False) for one in inside):
        message = "has adapters in it. Give what its merge_and_unload() returns, or the adapters' directories."
        raise InputError(Problem(message, place))
    if any(getattr(one, "hf_quantizer", None) is not None for one in inside):
        raise InputError(Problem("is quantised. Dequantise it first, or load it without quantisation.", place))


def _check(tensors: Mapping[Any, Any], place: str) -> None:
    problems = [problem for name, value in tensors.items() if (problem := _problem(name, value, place))]
    if problems:  # one for each cause
        counts = Counter(problem.message for problem in problems)
        first = {problem.message: problem for problem in reversed(problems)}
        raise InputError(*(_of_all(first[message], count) for message, count in counts.items()))


def _of_all(problem: Problem, count: int) -> Problem:
    if count == 1:
        return problem
    return evolve(problem, message=f"{problem.message} So it is with {count - 1:,} more.")


def _problem(name: Any, value: Any, place: str) -> Problem | None:
    """Why this entry cannot be read as a tensor in memory; None if it can."""
    import torch

    if not isinstance(name, str):
        return Problem(f"has the key {name!r}, and tensors have texts for names.", place)
    if not isinstance(value, torch.Tensor):
        return Problem(f"holds a {type(value).__name__} here, not a tensor.", place, name)
    if value.is_meta:
        message = "is on the meta device, so it has no numbers here. Load the model, and do not offload it."
        return Problem(message, place, name)
    if type(value) not in (torch.Tensor, torch.nn.Parameter) or value.is_quantized or value.layout != torch.strided:
        kind = type(value).__name__ if value.layout == torch.strided else str(value.layout).removeprefix("torch.")
        message = f"is not a plain tensor ({kind}): sharded, sparse or quantised. Gather or dequantise the model first."
        return Problem(message, place, name)
    try:
        dtype_from_torch(value.dtype)
    except ValueError as error:
        return Problem(f"{error}.", place, name)
    return None


def _without_tied_heads(tensors: Mapping[str, "Tensor"]) -> tuple[Mapping[str, "Tensor"], Mapping[str, str]]:
    """The tensors without LM heads that are tied to the embedding, as in files; and those heads → the embedding."""
    tied = tied_heads({name: _memory(tensor) for name, tensor in tensors.items()})
    return {name: tensor for name, tensor in tensors.items() if name not in tied}, tied


def _aliases(tensors: Mapping[str, "Tensor"], kept: Iterable[str]) -> dict[str, str]:
    """Names that are not kept → the kept name of the same tensor."""
    names = {_memory(tensors[name]): name for name in kept}
    return {n: names[_memory(t)] for n, t in tensors.items() if n not in kept and _memory(t) in names}


def _memory(tensor: "Tensor") -> tuple[Any, ...]:
    """What tells where a tensor is stored; equal for tensors that are one."""
    return tensor.device, tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype
