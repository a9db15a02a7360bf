"""The licence files of every source go along, each source's in a folder of its own."""

from types import SimpleNamespace
from typing import Any

import pytest
from conftest import write_model
from modelmerger import InputError, MergeConfig, merge
from modelmerger_plugins.licenses import _Names

TAKEN = [
    "LICENSE",
    "LICENCE.txt",
    "license.md",
    "NOTICE",
    "NOTICE-THIRD-PARTY.txt",
    "USE_POLICY.md",
    "COPYING",
    "LICENSE_x",
]
LEFT = ["LICENSES", "LICENSE.py", "LICENSE.PY", "my LICENSE", "NOTICED.txt", "UNLICENSE", "policy.md"]


def licences(models: SimpleNamespace) -> dict[str, str]:
    root = models.output / "licenses"
    return {path.relative_to(root).as_posix(): path.read_text() for path in root.rglob("*") if path.is_file()}


def test_every_source_gives_its_licence_files(models: SimpleNamespace, config: dict[str, Any]) -> None:
    for name in TAKEN + LEFT:
        (models.a / name).write_text(f"a {name}")
    (models.b / "LICENSE").write_text("b")
    (models.base / "NOTICE").write_text("base")
    (models.b / "NOTICE").mkdir()
    config |= {"strategy": "task_arithmetic", "base_model": str(models.base)}
    config["models"][1]["name"] = "second model/v2"

    merge(MergeConfig(**config))

    expected = {f"a/{name}": f"a {name}" for name in TAKEN}
    assert licences(models) == {**expected, "second_model_v2/LICENSE": "b", "base/NOTICE": "base"}


def test_the_same_directory_given_twice_keeps_two_folders(models: SimpleNamespace, config: dict[str, Any]) -> None:
    (models.a / "LICENSE").write_text("a")
    config["models"] = [
        {"path": str(models.a), "name": "x y"},
        {"path": str(models.a), "name": "x.y"},
        {"path": str(models.a), "name": "x+y"},
    ]

    merge(MergeConfig(**config))

    assert licences(models).keys() == {"x_y/LICENSE", "x.y/LICENSE", "x_y-2/LICENSE"}


def test_a_single_file_has_no_licence_of_its_own(models: SimpleNamespace, config: dict[str, Any]) -> None:
    (models.a / "LICENSE").write_text("a")
    config["models"][0]["path"] = str(models.a / "model.safetensors")

    merge(MergeConfig(**config))

    assert licences(models) == {}


def test_a_long_licence_file_is_copied_whole(models: SimpleNamespace, config: dict[str, Any]) -> None:
    text = "third party notices " * 100_000
    write_model(models.b, models.tensors["b"])
    (models.b / "NOTICE").write_text(text)

    merge(MergeConfig(**config))

    assert licences(models) == {"b/NOTICE": text}


def test_the_licences_of_a_source_that_was_merged_itself_keep_their_folders(
    models: SimpleNamespace, config: dict[str, Any]
) -> None:
    (models.a / "LICENSE").write_text("a")
    (models.b / "LICENSE").write_text("b")
    merge(MergeConfig(**config))
    once = models.output.rename(models.folder / "once")
    (models.base / "LICENSE").write_text("base")
    config["models"] = [{"path": str(once)}, {"path": str(models.base)}, {"path": str(models.a)}]

    merge(MergeConfig(**config))

    assert licences(models) == {"a/LICENSE": "a", "b/LICENSE": "b", "base/LICENSE": "base", "a-2/LICENSE": "a"}


def test_names_that_are_alike_are_numbered_in_linear_time() -> None:
    """B22"""
    names = _Names()

    assert [names.unused("x") for _ in range(50_000)][-1] == "x-50000"
    assert names.unused("X-2") == "X-2-2"


def test_licences_are_limited_together(models: SimpleNamespace, config: dict[str, Any]) -> None:
    """B22"""
    for number in range(1_001):
        (models.b / f"LICENSE.{number}").touch()

    with pytest.raises(InputError, match="has 1,001 licence files, 0 bytes together"):
        merge(MergeConfig(**config))
