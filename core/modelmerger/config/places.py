"""Where in a config a problem is, for one that was found while only a merge within the config was looked at."""

import re
from collections.abc import Collection

from attrs import evolve

from modelmerger.values.errors import Problem

_FIRST = r"(\w+)(?=[.\[]|\Z)"
_OF_A_MERGE = frozenset({"strategy", "models", "base_model", "options", "config"})


def inside_merge(where: str, problem: Problem) -> Problem:
    """The problem of a merge that lies at `where`: `models[1].weight` becomes `models[0].merge.models[1].weight`."""
    if problem.where in ("", "config"):
        return evolve(problem, where=where)
    return evolve(problem, where=f"{where}.{problem.where}")


def is_key(where: str, sections: Collection[str] = ()) -> bool:
    """Whether a problem is about a key of the config of a merge, or about nothing in particular; not about a file.

    sections: those that the config may have.
    """
    first = re.match(_FIRST, where)
    return not where or (first is not None and first[1] in {*_OF_A_MERGE, *sections})
