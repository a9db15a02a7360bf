"""`modelmerger new-plugin`: which names it takes, and what it writes."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from core.plugging import install
from modelmerger import ConfigError, shown
from modelmerger_plugins.new_plugin.project_files import PROJECT, package_of, write_project

Command = Callable[..., SimpleNamespace]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("name", "package"),
    [("merge-by-median", "merge_by_median"), ("Mine2", "mine2"), ("a.b_c-d", "a_b_c_d")],
)
def test_the_name_stands_wherever_the_old_one_stood(here: Path, name: str, package: str) -> None:
    assert write_project(name) == package
    texts = {path.relative_to(here / name).as_posix(): path.read_text() for path in (here / name).rglob("*.*")}
    assert f"src/{package}/strategy.py" in texts
    assert not any("agreeing" in text for text in [*texts, *texts.values()])
    assert f'name = "{name}"' in texts["pyproject.toml"]
    assert len(texts) == sum(path.is_file() and "__pycache__" not in path.parts for path in PROJECT.rglob("*.*"))
    assert [path.name for path in here.iterdir()] == [name]


@pytest.mark.parametrize(
    "name", ["", "-x", "2x", "x-", "a--b", "a/b", "../x", ".x", "a b", "نموذج", "x\n", "__x__", "/tmp/x"]
)
def test_what_is_no_name_is_refused(command: Command, here: Path, name: str) -> None:
    result = command("new-plugin", "--", name)
    assert result.status == 2
    assert "cannot be the name of a distribution and its package. Give one of letters and digits" in result.err
    assert list(here.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("class", "'class' is a word of Python"),
        ("torch", "a package 'torch' is installed already"),
        ("modelmerger", "a package 'modelmerger' is installed already"),
        ("json", "a package 'json' is installed already"),
    ],
)
def test_names_that_are_taken_are_refused(command: Command, name: str, said: str) -> None:
    result = command("new-plugin", name)
    assert (result.status, result.out) == (2, "")
    assert result.err.startswith(f"error: {said}")
    assert len(result.err.splitlines()) == 1


@pytest.mark.parametrize("kind", ["file", "folder", "link"])
def test_what_exists_is_left_alone(command: Command, here: Path, kind: str) -> None:
    there = here / "mine"
    if kind == "folder":
        there.mkdir()
    elif kind == "file":
        there.write_text("mine")
    else:
        there.symlink_to("nowhere")
    result = command("new-plugin", "mine")
    assert (result.status, result.out) == (4, "")
    assert result.err == "error: mine exists already. Choose another name, or remove it.\n"
    assert [path.name for path in here.iterdir()] == ["mine"]


def test_a_folder_that_cannot_be_written_is_said_and_nothing_stays(command: Command, here: Path) -> None:
    result = command("new-plugin", name := "x" * 300)
    assert result.status == 4
    assert result.err == f"error: {shown(name)} cannot be written: File name too long.\n"
    assert list(here.iterdir()) == []


def test_a_name_that_a_distribution_has_is_refused(distribution: Callable[..., Path]) -> None:
    (module,) = install(distribution, [("command", "count", "1 / 0")])
    with pytest.raises(ConfigError, match="is installed already"):
        package_of(module)
