"""The site has a page for everything that is public, and a place for every page. `make docs` looks at its links."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import modelmerger
import modelmerger.hooks.specs
import modelmerger.testing

ROOT = Path(__file__).parents[2]


def script(name: str) -> ModuleType:
    """A module of docs/building, which is no package."""
    spec = importlib.util.spec_from_file_location(f"docs_{name}", ROOT / f"docs/building/{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def listed(nav: object) -> list[str]:
    """Every page of a navigation."""
    if isinstance(nav, str):
        return [nav]
    parts = nav.values() if isinstance(nav, dict) else nav
    return [page for part in parts for page in listed(part)]


def test_every_public_name_has_a_page_and_a_line() -> None:
    api = script("api")
    made = dict(api.pages())
    wanted = [(name, "") for name in modelmerger.__all__] + [(name, "testing") for name in modelmerger.testing.__all__]
    assert [name for name, package in wanted if api.page_of(name, package) not in made] == []
    lines = made["reference/api/index.md"].splitlines()
    bare = [line for line in lines if line.startswith("| [`") and line.endswith("|  |")]
    assert bare == []
    assert sum(line.startswith("| [`") for line in lines) == len(wanted)


def test_every_module_of_hooks_has_a_page() -> None:
    files = Path(modelmerger.hooks.specs.__file__).parent.glob("*.py")
    assert set(script("api").HOOKS) == {file.stem for file in files if "\n@hookspec" in file.read_text()}


def test_every_page_is_listed_once() -> None:
    api, rooms = script("api"), script("rooms")
    pages = [file.relative_to(ROOT / "docs").as_posix() for file in (ROOT / "docs").rglob("*.md")]
    found = listed(rooms.navigation(pages, api.navigation()))
    assert sorted(found) == sorted({*pages, *rooms.ELSEWHERE, *(page for page, _ in api.pages())})


def test_pages_that_the_rooms_name_exist() -> None:
    rooms = script("rooms")
    named = [f"docs/{page}" for _, pages in rooms.ROOMS.values() for page in pages]
    assert [page for page in [*named, *rooms.ELSEWHERE.values()] if not (ROOT / page).is_file()] == []


def test_every_page_has_one_sentence_a_line() -> None:
    """`python docs/building/sentences.py` makes it so."""
    sentences = script("sentences")
    texts = {page: page.read_text(encoding="utf-8") for page in sentences.pages()}
    assert [page for page, text in texts.items() if sentences.written_anew(text) != text] == []


def test_sentences_are_told_apart_outside_of_code() -> None:
    sentences = script("sentences").sentences
    assert sentences("One, e.g. this. `a. b` is two? Yes.") == ["One, e.g. this.", "`a. b` is two?", "Yes."]
    assert sentences("**Exact.** Once. (See [it](a. b).) Ends") == ["**Exact.** Once.", "(See [it](a. b).)", "Ends"]
    assert sentences("سؤال؟ جواب. نعم") == ["سؤال؟", "جواب.", "نعم"]
