"""For tests of plugins: merges of tensors in memory, and arguments of hooks.

The plugins are those that are installed, as in a merge. Install a package that you are writing with `pip install -e .`.
"""

from modelmerger.testing.handed import settings_of, subject_of
from modelmerger.testing.memory import MemoryCheckpoint
from modelmerger.testing.merging import Planned, merge_in_memory, plan_in_memory

__all__ = [
    "MemoryCheckpoint",
    "Planned",
    "merge_in_memory",
    "plan_in_memory",
    "settings_of",
    "subject_of",
]
