"""How much a room and a module of the core hold. Who may import whom is in pyproject.toml, for import-linter."""

from collections import Counter
from pathlib import Path

import modelmerger

SOURCE = Path(modelmerger.__file__).parent
MODULES = [file.relative_to(SOURCE) for file in SOURCE.rglob("*.py")]


def test_no_folder_is_crowded() -> None:
    crowds = Counter(str(module.parent) for module in MODULES)
    assert {folder: count for folder, count in crowds.items() if count > 21} == {}  # with what says what the room is


def test_no_module_is_long() -> None:
    lengths = {str(module): len((SOURCE / module).read_text().splitlines()) for module in MODULES}
    assert {name: length for name, length in lengths.items() if length > 300} == {}
