"""The check of a composition, as a plugin answers with it."""

from collections.abc import Iterator, Mapping
from numbers import Real
from typing import Any

from modelmerger.hooks.answers import are_finite, fault_of_tensors, is_list_of
from modelmerger.hooks.calls import Calls
from modelmerger.values.checkpoint import Checkpoint, TensorInfo
from modelmerger.values.composition import Composition
from modelmerger.values.dtypes import DTYPES
from modelmerger.values.errors import Problem
from modelmerger.values.plain_names import is_plain_name, is_plain_path

HOOK = "compose_model"
Fault = tuple[str, str, str]
"""What was given, what is due instead, and the tensor in question."""


def check_composition(calls: Calls, found: Any) -> Composition:
    """The answer, if it is a sound composition. Raises `PluginError`."""
    if not isinstance(found, Composition):
        raise calls.wrong_answer(HOOK, found, "a Composition, a DeferredComposition or None")
    for given, due, tensor in (*_faults_of_tensors(found), *_faults_of_the_rest(found)):
        raise calls.wrong_answer(HOOK, given, due, tensor=tensor)
    return found


def _faults_of_tensors(found: Any) -> Iterator[Fault]:
    checkpoint = found.checkpoint
    if not isinstance(checkpoint, Checkpoint):
        yield f"the checkpoint {checkpoint!r}", "a Checkpoint", ""
        return
    tensors = getattr(checkpoint, "tensors", None)
    if not isinstance(tensors, Mapping) or not tensors or not is_list_of(TensorInfo, list(tensors.values())):
        yield f"the tensors {tensors!r}", "at least one TensorInfo by name", ""
        return
    if (wrong := fault_of_tensors(checkpoint)) is not None:
        yield wrong
        return
    if not isinstance(found.dtypes, Mapping):
        yield f"the dtypes {found.dtypes!r}", "dtypes by tensor", ""
        return
    for name, dtype in found.dtypes.items():
        if name not in tensors:
            yield f"a dtype for {name!r}", "one for a tensor of its checkpoint", ""
        elif dtype not in DTYPES:
            yield f"the dtype {dtype!r}", "one that safetensors has", name
        elif dtype != (stored := tensors[name].dtype) and {DTYPES[dtype].family, DTYPES[stored].family} != {"float"}:
            yield f"the dtype {dtype}", f"{stored}, the dtype of a tensor that cannot be rounded", name


def _faults_of_the_rest(found: Any) -> Iterator[Fault]:
    if not isinstance(found.writes, str) or not found.writes:
        yield f"writes={found.writes!r}", "a word for what is written", ""
    if not isinstance(found.stem, str) or not is_plain_name(found.stem):
        yield f"the stem {found.stem!r}", "the beginning of a plain file name", ""
    if not isinstance(found.documents, Mapping):
        yield f"the documents {found.documents!r}", "contents by file name", ""
        return
    for name, content in found.documents.items():
        if not isinstance(name, str) or not is_plain_path(name) or not isinstance(content, bytes):
            yield f"the document {name!r}", "a plain file name with bytes", ""
    if not isinstance(found.memory, int) or found.memory < 0:
        yield f"memory={found.memory!r}", "a number of bytes", ""
    if not isinstance(found.relative_error, Real | None) or not are_finite([found.relative_error]):
        yield f"relative_error={found.relative_error!r}", "a number or None", ""
    if not _are_statistics(found.observed):
        yield f"observed={found.observed!r}", "numbers by tensor and statistic", ""
    if not is_list_of(Problem, found.notes):
        yield f"the notes {found.notes!r}", "Problems", ""


def _are_statistics(observed: Any) -> bool:
    return isinstance(observed, Mapping) and all(
        isinstance(found, Mapping) and is_list_of(Real, list(found.values())) and are_finite(found.values())
        for found in observed.values()
    )
