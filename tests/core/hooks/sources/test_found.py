"""Where modules come from, found without importing them."""

import sys

import pytest
from modelmerger.hooks.sources.found import spec_of


def test_a_module_in_a_package_is_found_and_its_package_not_imported() -> None:
    spec = spec_of("xml.dom.minidom")
    assert spec is not None
    assert spec.name == "xml.dom.minidom"
    assert spec.origin is not None
    assert spec.origin.endswith("minidom.py")


@pytest.mark.parametrize("taken", ["json", "numpy", "no_such"])
def test_what_is_taken_from_a_module_is_no_module_even_where_one_has_its_name(taken: str) -> None:
    assert "textwrap" in sys.stdlib_module_names
    assert spec_of("textwrap") is not None
    assert spec_of(f"textwrap.{taken}") is None
