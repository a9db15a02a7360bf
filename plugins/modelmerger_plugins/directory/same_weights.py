"""Models that hold the numbers of the base model, told by a few numbers of each tensor."""

from collections.abc import Iterator, Sequence

from modelmerger import Checkpoint, MergeError, Problem, Settings

_SAMPLE = 512
"""Numbers of a tensor that are compared, from its middle on; all of a smaller one."""
_WHOLE_BYTES = 64
"""Elements that begin at a multiple of it begin with a byte, in every dtype."""


def same_weights(checkpoints: Sequence[Checkpoint], settings: Settings) -> Iterator[Problem]:
    """A note of each model that is the base model over again. A few numbers are read, up to the first that differs.

    Nothing is read of adapters, whose base is their own, of merges, and of models in memory.
    """
    if settings.base_model is None:
        return
    *models, base = checkpoints
    for model in models:
        if _lies_in_files(model) and _lies_in_files(base) and _same(model, base):
            message = (
                "has the same numbers as the base model wherever the two were compared, so there is nothing in it that "
                "the base has not. Are both paths right?"
            )
            yield Problem(message, model.place, severity="note")


def _lies_in_files(model: Checkpoint) -> bool:
    return bool(model.files) and model.base is None and model.merge is None


def _same(model: Checkpoint, base: Checkpoint) -> bool:
    if model.tensors != base.tensors:
        return False
    if {(file.device, file.inode) for file in model.files} == {(file.device, file.inode) for file in base.files}:
        return True
    try:
        return all(_sample(model, name) == _sample(base, name) for name in model.tensors)
    except MergeError:  # which a merge of them will say
        return False


def _sample(model: Checkpoint, name: str) -> bytearray:
    info = model.tensors[name]
    start = max(0, info.elements - _SAMPLE) // 2 // _WHOLE_BYTES * _WHOLE_BYTES
    stop = min(info.elements, start + _SAMPLE)
    content = bytearray(info.span(start, stop)[1])
    model.read(name, start, stop, memoryview(content))
    return content
