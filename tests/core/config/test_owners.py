"""Who declares a key: said of plugins that are not imported."""

from pathlib import Path

import pytest
from modelmerger.config.owners import declared_fields

SHARED = """
class Ancient:
    oldest: int = 1

class Old(Ancient):
    old: int = 1
"""


@pytest.mark.parametrize(
    "source",
    [
        "from acme_bases.shared import Old\nclass Options(Old):\n    new: int\n",
        "from acme_bases import shared\nclass Options(shared.Old):\n    new: int\n",
        "from .shared import Old\nclass Between(Old): ...\nclass Options(Between):\n    new: int\n",
    ],
)
def test_inherited_fields_are_declared_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str) -> None:
    package = tmp_path / "acme_bases"
    package.mkdir()
    for name, content in (("__init__", ""), ("shared", SHARED), ("plugin", "import nothing_there\n" + source)):
        (package / f"{name}.py").write_text(content)
    monkeypatch.syspath_prepend(str(tmp_path))
    assert declared_fields("acme_bases.plugin", "Options") == {"new", "old", "oldest"}


def test_classes_that_inherit_from_each_other_or_from_strangers_declare_what_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = "import abc\nclass Options(Other, abc.ABC, Generic[int]):\n    a: int\nclass Other(Options):\n    b: int\n"
    (tmp_path / "acme_circle.py").write_text(source)
    monkeypatch.syspath_prepend(str(tmp_path))
    assert declared_fields("acme_circle", "Options") == {"a", "b"}
