"""Experts of a layer that one model holds in one tensor, and another one by one."""

import re
from collections.abc import Iterable

from modelmerger import Checkpoint, Problem, shown

_FUSED = re.compile(r"\.experts\.[^.0-9][^.]*(\.weight)?\Z")
_SINGLE = re.compile(r"\.experts\.[0-9]+\.")


def fused_in_one(donor: Checkpoint, model: Checkpoint, names: Iterable[str]) -> Problem | None:
    """What to say where only one of two models holds experts in one tensor. names: the model's, as the donor's."""
    there = set(names)
    here = donor.tensors.keys() - there
    there -= donor.tensors.keys()
    for fused, fused_names, single, single_names in ((model, there, donor, here), (donor, here, model, there)):
        one = min(filter(_FUSED.search, fused_names), default=None)
        other = min(filter(_SINGLE.search, single_names), default=None)
        if one is not None and other is not None:
            message = (
                f"has the experts of a layer in one tensor ({shown(one, 60)}), and '{single.name}' has them one by one "
                f"({shown(other, 60)}). Save '{fused.name}' with save_pretrained, which parts them."
            )
            return Problem(message, fused.place)
    return None
