"""What the files of a model that saves itself call its tensors, whatever its layers are wrapped in."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from safetensors import safe_open
from safetensors.torch import save_file

FileNames = Callable[[Sequence[str]], Mapping[str, str]]
"""What files call tensors, by their names in memory; for all of them."""


def as_they_are(names: Sequence[str]) -> Mapping[str, str]:
    """The same names."""
    return {name: name for name in names}


def save_pretrained(model: Any, tree: Path, file_names: FileNames, max_shard_size: int | str) -> None:
    """Has a model write itself into a directory, with the names that files have. max_shard_size: as it takes it."""
    import transformers

    own = model.save_pretrained
    writer = own.__self__ if inspect.ismethod(own) else model  # that of torch.compile hands out the inner one's
    told: dict[str, Any] = {}
    if isinstance(writer, transformers.PreTrainedModel):  # converts by name what it writes
        state = writer.state_dict()
        names = file_names(list(state))
        if _are_others(names):
            told = {"state_dict": {names[name]: tensor for name, tensor in state.items()}}
    own(tree, max_shard_size=max_shard_size, **told)
    if not told:
        for path in tree.rglob("adapter_model.safetensors"):
            _rename(path, file_names)


def _rename(path: Path, file_names: FileNames) -> None:
    """PEFT finds what it writes by the names in memory, so they are changed when it has written."""
    with safe_open(path, "pt") as file:
        stored, metadata = list(file.keys()), file.metadata()
        names = file_names(stored)
        if not _are_others(names):
            return
        tensors = {names[name]: file.get_tensor(name) for name in stored}
    path.unlink()  # the tensors read lie in the memory of the file itself
    save_file(tensors, path, metadata)


def _are_others(names: Mapping[str, str]) -> bool:
    return any(name != new for name, new in names.items())
