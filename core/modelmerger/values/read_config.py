"""What a plugin makes of the config of another tool."""

from collections.abc import Mapping, Sequence
from typing import Any

from attrs import frozen

from modelmerger.values.errors import Problem


@frozen
class ReadConfig:
    """The answer to `read_config`: a config in our keys, and what is to be said of how it was read."""

    config: Mapping[str, Any]
    """Plain data, with the keys of a config file. It is checked as a config file is."""
    notes: Sequence[Problem] = ()
    """Warnings and notes of the merge, such as keys that have no effect here. An error refuses the file."""
