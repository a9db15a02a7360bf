"""What ruff does not ask for: docstrings of fields, which Python forgets and editors show."""

import ast
import inspect
import itertools
import textwrap
from collections.abc import Iterator

import attrs
import modelmerger
import pytest

VALUES = sorted(
    name for name in modelmerger.__all__ if inspect.isclass(cls := getattr(modelmerger, name)) and attrs.has(cls)
)


def undocumented(source: str) -> Iterator[str]:
    """The public fields of a class, given its source, that no docstring stands under."""
    (definition,) = ast.parse(textwrap.dedent(source)).body
    assert isinstance(definition, ast.ClassDef)
    for line, below in itertools.pairwise([*definition.body, ast.Pass()]):
        if not isinstance(line, ast.AnnAssign) or not isinstance(line.target, ast.Name):
            continue
        documented = isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant) and below.value.value
        if not line.target.id.startswith("_") and not (documented and isinstance(documented, str)):
            yield line.target.id


@pytest.mark.parametrize("name", VALUES)
def test_every_field_of_a_public_value_has_a_docstring(name: str) -> None:
    assert list(undocumented(inspect.getsource(getattr(modelmerger, name)))) == []


def test_a_field_without_a_docstring_is_found() -> None:
    source = '''
    class Value:
        """name: not here."""

        name: str
        size: int
        """Bytes."""
        empty: int = 0
        """"""
        _private: int = 0
        last: bool = False
    '''
    assert list(undocumented(source)) == ["name", "empty", "last"]


def test_the_public_values_are_looked_at() -> None:
    assert {"MergePlan", "Finding", "Traits", "Problem"} <= set(VALUES)
