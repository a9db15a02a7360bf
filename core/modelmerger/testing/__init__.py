"""For tests of plugins: checks that any plugin passes, merges of tensors in memory, and arguments of hooks.

The plugins are those that are installed, as in a merge, or modules and objects. Install a package that you are writing
with `pip install -e .`.
"""

from modelmerger.testing.checking import (
    check_executor,
    check_loader,
    check_sidecars,
    check_strategy,
    check_validator,
    check_views,
)
from modelmerger.testing.checks.running import describe_checks, parametrize_with_checks
from modelmerger.testing.handed import settings_of, subject_of
from modelmerger.testing.memory import MemoryCheckpoint
from modelmerger.testing.merging import Planned, merge_in_memory, plan_in_memory

__all__ = [
    "MemoryCheckpoint",
    "Planned",
    "check_executor",
    "check_loader",
    "check_sidecars",
    "check_strategy",
    "check_validator",
    "check_views",
    "describe_checks",
    "merge_in_memory",
    "parametrize_with_checks",
    "plan_in_memory",
    "settings_of",
    "subject_of",
]
