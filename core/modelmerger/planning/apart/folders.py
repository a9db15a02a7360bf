"""The layout of weights of which some go to folders of their own, as files that are whole by themselves."""

from collections.abc import Callable, Mapping, Sequence

from attrs import evolve

from modelmerger.planning.layout_check import check_layout
from modelmerger.values.layout import Layout, OutputTensor

LayOut = Callable[[Sequence[OutputTensor], bool], Layout]
"""Lays out some tensors as if they were all; in one file if the second argument is true."""


def lay_out(tensors: Sequence[OutputTensor], folders: Mapping[str, str], lay_out_some: LayOut) -> Layout:
    """The layout of all tensors.

    folders: what names begin with → the folder that these tensors go to, in one file and under the rest of their names.
    No prefix begins with another one. Raises `PluginError` for a layout that does not place every tensor.
    """
    inside: dict[str, list[OutputTensor]] = {prefix: [] for prefix in folders}
    beside: list[OutputTensor] = []
    for tensor in tensors:
        prefix = next((prefix for prefix in folders if tensor.name.startswith(prefix)), None)
        (beside if prefix is None else inside[prefix]).append(tensor)
    layout = _checked(beside, lay_out_some, whole=False)
    files, documents = list(layout.files), dict(layout.documents)
    for prefix, some in inside.items():
        if some:
            found = _moved(some, prefix, folders[prefix], lay_out_some)
            files += found.files
            documents |= found.documents
    return evolve(layout, files=files, documents=documents)


def _moved(tensors: Sequence[OutputTensor], prefix: str, folder: str, lay_out_some: LayOut) -> Layout:
    """Some tensors in a folder: without their prefix in the files, and with it in the plan."""
    named = {tensor.name.removeprefix(prefix): tensor for tensor in tensors}
    layout = _checked([evolve(tensor, name=name) for name, tensor in named.items()], lay_out_some, whole=True)
    files = [
        evolve(
            file,
            name=f"{folder}/{file.name}",
            placements=[evolve(placed, tensor=named[placed.tensor.name]) for placed in file.placements],
        )
        for file in layout.files
    ]
    return evolve(layout, files=files, documents={f"{folder}/{name}": text for name, text in layout.documents.items()})


def _checked(tensors: Sequence[OutputTensor], lay_out_some: LayOut, *, whole: bool) -> Layout:
    layout = lay_out_some(tensors, whole)
    check_layout(layout, tensors)
    return layout
