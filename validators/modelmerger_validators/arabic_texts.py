"""Texts and prompts in five varieties of Arabic, for configs that give none. `data/README.md` says who wrote them."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from modelmerger import hookimpl

FOLDERS = {"scoring": "texts", "prompting": "prompts"}
DATA = Path(__file__).parent / "data"


@hookimpl
def provide_texts(purpose: str) -> Mapping[str, Sequence[str]] | None:
    """Variety → lines, for either purpose."""
    if purpose not in FOLDERS:
        return None
    files = sorted((DATA / FOLDERS[purpose]).glob("*.txt"))
    return {file.stem: file.read_text(encoding="utf-8").splitlines() for file in files}
