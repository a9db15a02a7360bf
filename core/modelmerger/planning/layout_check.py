"""The check of a plugin's layout, before anything is written."""

from collections.abc import Sequence

from modelmerger.values.dtypes import DTYPES
from modelmerger.values.errors import PluginError
from modelmerger.values.layout import Layout, OutputTensor
from modelmerger.values.plain_names import is_plain_name


def check_layout(layout: Layout, tensors: Sequence[OutputTensor]) -> None:
    """Raises `PluginError` unless a layout places every tensor once, aligned, without holes or overlaps."""
    placed = [placement.tensor for file in layout.files for placement in file.placements]
    if sorted(placed, key=_by_name) != sorted(tensors, key=_by_name):
        raise PluginError(f"the layout of format '{layout.format}' does not place every tensor exactly once, as it is.")
    names = [*(file.name for file in layout.files), *layout.documents]
    if len(set(names)) != len(names) or not all(map(is_plain_name, names)):
        raise PluginError(
            f"the layout of format '{layout.format}' has a file name that is not a plain name, or is not unique."
        )
    for file in layout.files:
        spans = sorted([(p.offset, p.tensor.bytes) for p in file.placements] + [(o, len(b)) for o, b in file.fixed])
        end = 0
        for offset, length in spans:
            if offset != end:
                raise PluginError(
                    f"the layout of format '{layout.format}' leaves a hole or an overlap in {file.name} at {end}."
                )
            end += length
        misplaced = [p for p in file.placements if p.offset % max(1, DTYPES[p.tensor.dtype].bits // 8)]
        if end != file.size or misplaced:
            raise PluginError(
                f"the layout of format '{layout.format}' gives {file.name} a wrong size or a misaligned tensor."
            )


def _by_name(tensor: OutputTensor) -> str:
    return tensor.name
