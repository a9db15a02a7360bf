"""A costly question of a plugin about what a merge will write, which a process of its own answers."""

from collections.abc import Mapping
from typing import Any

from attrs import field, frozen


@frozen
class Inquiry:
    """A function and its argument, as plain data: it is called in another process, beside the merge.

    It returns an iterable of `Problem`s and `Figures`. An error among them keeps the output from being published.
    """

    function: str
    """What is called: `module:function`. Its module is imported where it is called, and not before."""
    argument: Mapping[str, Any]
    """Its only argument, of plain JSON."""
    question: str
    """What it finds out, for messages, after "it is not known": "whether transformers loads the merged model"."""
    costs: tuple[str, ...] = ()
    """Modules whose import is what makes it costly. Where all of them are imported already, it is called right here."""
    environment: Mapping[str, str] = field(factory=dict)
    """Variables of the environment of that process, beside those of this one."""
    without: tuple[str, ...] = ()
    """Packages that the process does without: whatever would import one finds that it is not installed."""
