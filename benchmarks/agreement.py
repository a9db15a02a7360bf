"""How far two merges by ties agree, element by element.

    python benchmarks/agreement.py DENSITY BASE MODEL… -- OURS THEIRS

Prints the share of the elements whose stored bits are the same, of those where no model's magnitude equals its
threshold, and how many of all these are. Which of equal magnitudes are kept is chance in mergekit, and modelmerger
keeps them all.
"""

import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from safetensors import safe_open

SLICE = 1 << 22
"""Elements that are compared at a time."""


class Checkpoint:
    """The tensors of a directory, by name."""

    def __init__(self, directory: Path) -> None:
        files = [safe_open(file, framework="pt") for file in sorted(directory.glob("*.safetensors"))]
        self._by_name = {name: file for file in files for name in file.keys()}  # noqa: SIM118  # no mapping
        self.names = list(self._by_name)

    def flat(self, name: str) -> torch.Tensor:
        """A tensor as a vector, in its own dtype."""
        return self._by_name[name].get_tensor(name).flatten()


def threshold(magnitudes: torch.Tensor, density: float) -> torch.Tensor:
    """The smallest magnitude that is kept."""
    kept = max(1, int(density * len(magnitudes)))
    return magnitudes.kthvalue(len(magnitudes) - kept + 1).values


def agreement(
    density: float, base: Checkpoint, models: Sequence[Checkpoint], outputs: Sequence[Checkpoint]
) -> tuple[float, float]:
    """The share of equal elements among those that are compared, and the share of these."""
    equal = counted = elements = 0
    for name in base.names:
        of_base, ours, theirs = (one.flat(name) for one in (base, *outputs))
        of_models = [one.flat(name) for one in models]
        least = [threshold((one.float() - of_base.float()).abs_(), density) for one in of_models]
        for start in range(0, len(ours), SLICE):
            part = slice(start, start + SLICE)
            clear = torch.ones_like(ours[part], dtype=torch.bool)
            for one, at in zip(of_models, least, strict=True):
                clear &= (one[part].float() - of_base[part].float()).abs_() != at
            elements += len(clear)
            counted += int(clear.sum())
            equal += int((clear & (ours[part] == theirs[part])).sum())
    return equal / counted, counted / elements


def split(arguments: Sequence[str]) -> Iterator[list[Checkpoint]]:
    """The checkpoints before and after the two dashes."""
    place = arguments.index("--")
    for part in (arguments[:place], arguments[place + 1 :]):
        yield [Checkpoint(Path(path)) for path in part]


if __name__ == "__main__":
    (given_base, *given_models), given_outputs = split(sys.argv[2:])
    print(json.dumps(agreement(float(sys.argv[1]), given_base, given_models, given_outputs)))
