"""For tests of plugins: merges of tensors in memory, and what hooks are handed.

The plugins are those that are installed, as in a merge; a package that is being written is installed with `pip install -e .`.
"""

from modelmerger.testing.handed import measured, settings_of
from modelmerger.testing.memory import MemoryCheckpoint, MemoryStaging
from modelmerger.testing.merging import Planned, merge_in_memory, planned

__all__ = ["MemoryCheckpoint", "MemoryStaging", "Planned", "measured", "merge_in_memory", "planned", "settings_of"]
