"""Names and versions are those that importlib_metadata finds in all of the metadata."""

import importlib_metadata
import pytest
from modelmerger.inputs.installed.versions import name_and_version, version_of


def test_each_installed_distribution() -> None:
    found = list(importlib_metadata.distributions())
    assert len(found) > 10
    assert list(map(name_and_version, found)) == [(one.metadata["Name"], one.metadata["Version"]) for one in found]


def test_one_that_is_named() -> None:
    assert version_of("modelmerger") == importlib_metadata.version("modelmerger")
    with pytest.raises(importlib_metadata.PackageNotFoundError):
        version_of("no-such-distribution")
