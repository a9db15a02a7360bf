"""What shares of a merge have made stays where it is, though this machine's arithmetic would come to other bits."""

import os
from collections.abc import Mapping
from pathlib import Path

from modelmerger.output.shared.part_files import PartJournals
from modelmerger.values.errors import MergeError, Problem

ARITHMETIC = "floating-point kernels"
"""The part of a plan's digest that differs between machines."""


def check_same_arithmetic(journals: PartJournals, plan: str, decides: Mapping[str, str], root: Path) -> None:
    """Raises `MergeError` where nothing but the machine's arithmetic differs from what shares have begun.

    plan: of what is staged. decides: what the digest of the plan of this run is made of.
    """
    for journal in journals.of_plan(plan).journals:
        theirs = journal.decides
        if theirs and {part for part in {**theirs, **decides} if theirs.get(part) != decides.get(part)} == {ARITHMETIC}:
            message = (
                f"holds parts of this merge, made where floating-point sums come to other bits than on "
                f"{os.uname().nodename}. Run it on machines with the same kind of processor and the same environment, "
                "or remove that directory to begin anew here."
            )
            raise MergeError(Problem(message, str(root)))
