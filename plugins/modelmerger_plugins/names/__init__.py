"""What a tensor is called: any name, in memory, in a wrapper or in another file, as the donor's file has it."""

from modelmerger_plugins.names.matching import file_names as file_names
from modelmerger_plugins.names.wrappers import unwrapped as unwrapped
