"""The core's rooms: who imports whom, counting imports inside functions and those for type checkers alone."""

import ast
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import modelmerger
import pytest

ROOMS = ("values", "inputs", "output", "hooks", "config", "planning", "engine", "validation", "door")
"""From the ground up. The door is the command line, and every module that is in no folder."""
SOURCE = Path(modelmerger.__file__).parent


def named(file: Path) -> str:
    return ".".join(("modelmerger", *file.relative_to(SOURCE).with_suffix("").parts)).removesuffix(".__init__")


def room(module: str) -> str:
    folder = module.partition(".")[2].partition(".")[0]
    return folder if folder in ROOMS else "door"


def imported(source: str) -> Iterator[str]:
    """Whatever a source imports, and what that is imported from."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "the core's imports are absolute"
            yield from (str(node.module), *(f"{node.module}.{alias.name}" for alias in node.names))


@pytest.fixture(scope="module")
def graph() -> dict[str, set[str]]:
    """What each module of the core imports of it. The table of public names imports nothing here: it is for those outside."""
    files = {named(file): file for file in SOURCE.rglob("*.py")}
    found = {name: {*imported(file.read_text())} & files.keys() - {name} for name, file in files.items()}
    return found | {"modelmerger": set()}


def test_no_module_imports_itself_over_others(graph: dict[str, set[str]]) -> None:
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        raise AssertionError(" imports ".join(reversed(error.args[1]))) from None


@pytest.mark.parametrize("upper", ROOMS)
def test_a_room_imports_only_rooms_below_it(graph: dict[str, set[str]], upper: str) -> None:
    allowed = ROOMS[: ROOMS.index(upper) + 1]
    upward = [
        f"{module} imports {other}"
        for module, others in graph.items()
        if room(module) == upper
        for other in sorted(others)
        if room(other) not in allowed
    ]
    assert not upward, "\n".join(upward)


def test_every_folder_is_a_room_and_none_is_crowded(graph: dict[str, set[str]]) -> None:
    folders = {module.partition(".")[2].rpartition(".")[0] for module in graph}
    assert {folder.partition(".")[0] for folder in folders} - {""} == {*ROOMS, "cli"} - {"door"}
    for folder in folders:
        assert len(list((SOURCE / folder.replace(".", "/")).glob("*.py"))) <= 21, (
            folder
        )  # with what says what the room is


def test_no_module_is_long() -> None:
    lengths = {named(file): len(file.read_text().splitlines()) for file in SOURCE.rglob("*.py")}
    assert {name: length for name, length in lengths.items() if length > 300} == {}
