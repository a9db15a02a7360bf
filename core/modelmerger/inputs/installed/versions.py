"""Names and versions of installed distributions, of whose metadata nothing else is parsed.

Descriptions of hundreds of lines stand behind the headers. importlib_metadata parses all of it, each time.
"""

from email.parser import HeaderParser
from typing import Any

import importlib_metadata


def name_and_version(distribution: Any) -> tuple[str, str]:
    """Name and version of a distribution, as importlib_metadata has it: the type depends on its version."""
    text = distribution.read_text("METADATA")
    if not text:  # of formats before wheels
        return distribution.name, distribution.version
    headers = HeaderParser().parsestr(text.partition("\n\n")[0])
    return headers["Name"], headers["Version"]


def version_of(name: str) -> str:
    """The version of an installed distribution."""
    return name_and_version(importlib_metadata.distribution(name))[1]
