"""What the documentation says is run: snippets, commands, links, and that nothing a user can write is left out."""

import inspect
import json
import os
import re
from collections.abc import Callable
from functools import partial, update_wrapper
from importlib.metadata import entry_points
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from xml.etree import ElementTree as ET

import attrs
import pytest
from modelmerger import MergeConfig, ValidationSettings, parse_document

from tests.core.plugging import BUILT_IN_STRATEGIES

ROOT = Path(__file__).parents[2]
PAGES = sorted([ROOT / "README.md", ROOT / "README.ar.md", *(ROOT / "docs").rglob("*.md")])
IN_SECTIONS = ROOT / "docs/how-to/when-it-does-not-work.md"  # each section of which has a test of its own
IN_ARABIC = [page for page in PAGES if page.name.endswith(".ar.md")]  # which have the snippets of the English pages
RUN_HERE = [
    p for p in PAGES if p not in IN_ARABIC and p.parent.name != "tutorials"
]  # done from top to bottom, elsewhere
WRITTEN = [*PAGES, ROOT / "CONTRIBUTING.md", ROOT / "SECURITY.md", ROOT / "CHANGELOG.md"]


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)


def page_id(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def write_configs(page: Path, place: Path) -> None:
    """The page's config, recipe and modules, under the names that its commands use."""
    (place / "examples/dialects/merged").mkdir(parents=True, exist_ok=True)
    for text in [*blocks(page, "yaml"), *blocks(ROOT / "README.md", "yaml")][:1]:
        (place / "merge.yaml").write_text(text)
        (place / "examples/dialects/task_arithmetic.yaml").write_text(text)
    (place / "weighted.yaml").write_text(blocks(ROOT / "docs/reference/config.md", "yaml")[0])
    for text in blocks(page, "yml"):
        (place / "recipe.yml").write_text(text)
    for text in blocks(page, "ini"):
        (place / "recipe.ini").write_text(text)
    for name, text in re.findall(r"^```python\n# (\w+\.py)\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL):
        (place / name).write_text(text)


def commands(page: Path) -> list[list[str]]:
    lines = [line.split("#")[0].split() for block in blocks(page, "console") for line in block.splitlines()]
    return [line for line in lines if line]


@pytest.mark.parametrize("page", RUN_HERE, ids=page_id)
def test_configs_in_the_docs_are_configs(page: Path, place: Path, install_plugins: Callable[[Path], None]) -> None:
    install_plugins(page)
    for text in blocks(page, "yaml"):
        MergeConfig.from_dict(parse_document(text, source=str(page), format="yaml"))


@pytest.mark.usefixtures("tokenizers_here")
@pytest.mark.parametrize(
    "page",
    [p for p in RUN_HERE if p != IN_SECTIONS and any(c[0].endswith("modelmerger") for c in commands(p))],
    ids=page_id,
)
def test_commands_in_the_docs_succeed(
    page: Path,
    place: Path,
    command: Callable[..., SimpleNamespace],
    install_plugins: Callable[[Path], None],
    request: pytest.FixtureRequest,
) -> None:
    if page.name != "README.md":
        request.getfixturevalue("untried")
    install_plugins(page)
    write_configs(page, place)
    for program, *arguments in commands(page):
        if program.endswith("modelmerger"):
            local = [str(place / "stronger") if a == "/tmp/stronger" else a for a in arguments]
            result = command(*local)
            assert result.status == 0, (arguments, result.err)


@pytest.mark.usefixtures("tokenizers_here")
@pytest.mark.parametrize("page", [p for p in RUN_HERE if blocks(p, "python")], ids=page_id)
def test_python_in_the_docs_runs(page: Path, place: Path, install_plugins: Callable[[Path], None]) -> None:
    """Tests in a snippet are called too."""
    install_plugins(page)
    write_configs(page, place)
    if page.name == "tutorial.md":
        config = MergeConfig.from_file("merge.yaml")
        import modelmerger

        modelmerger.merge(config)
    for snippet in blocks(page, "python"):
        names: dict[str, Any] = {}
        exec(compile(snippet, page_id(page), "exec"), names)
        for test in [case for name, value in names.items() if name.startswith("test_") for case in cases(value)]:
            (folder := place / test.__name__).mkdir(exist_ok=True)
            test(**{"tmp_path": folder} if "tmp_path" in inspect.signature(test).parameters else {})


@pytest.mark.parametrize("page", IN_ARABIC, ids=page_id)
def test_pages_in_arabic_have_the_snippets_of_the_english_ones(page: Path) -> None:
    english = page.with_name(page.name.replace(".ar.md", ".md"))
    for language in ("yaml", "python"):
        assert blocks(page, language)
        assert set(blocks(page, language)) <= set(blocks(english, language))
    assert commands(page) == commands(english)


def cases(test: Any) -> list[Any]:
    """The test itself; or one for each set of values that it is parametrised with."""
    marks = [mark for mark in getattr(test, "pytestmark", []) if mark.name == "parametrize"]
    return [update_wrapper(partial(test, *each.values), test) for mark in marks for each in mark.args[1]] or [test]


@pytest.mark.parametrize("page", WRITTEN, ids=page_id)
def test_no_page_has_two_versions_of_a_text(page: Path) -> None:
    """As an unfinished merge of two branches leaves it, or a place for a table."""
    lines = page.read_text(encoding="utf-8").splitlines()
    assert [line for line in lines if line.startswith(("<<<<<<<", ">>>>>>>", "=======")) or line == "TABLE"] == []


def test_make_targets_in_the_docs_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for page in WRITTEN:
        for line in commands(page):
            if line[0] == "make":
                assert line[1] in targets, (page, line)


@pytest.mark.parametrize("page", WRITTEN, ids=page_id)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
        assert (page.parent / target).exists(), target


@pytest.mark.parametrize(
    "picture", sorted(set(ROOT.glob("docs/**/*.svg")) | set(ROOT.glob("benchmarks/**/*.svg"))), ids=page_id
)
def test_pictures_can_be_shown(picture: Path) -> None:
    """A browser shows nothing of a picture that is no sound XML, as with a terminal's escape in it."""
    assert ET.parse(picture).getroot().tag.endswith("}svg")


@pytest.mark.parametrize("page", WRITTEN, ids=page_id)
def test_modules_that_the_pages_name_exist(page: Path) -> None:
    folders = ("core/modelmerger", "benchmarks", "docs/building", "examples/dialects", "validators", "tests")
    known = {f"/{file.relative_to(ROOT)}" for folder in folders for file in (ROOT / folder).rglob("*.py")}
    named = set(re.findall(r"`([a-z_/]+\.py)`", page.read_text())) - {"src/training/model_merger.py"}
    assert [name for name in sorted(named) if not any(file.endswith(f"/{name}") for file in known)] == []


@pytest.fixture(scope="module")
def schema() -> dict[str, Any]:
    """What a config may say; that it is what the code says is tested where the code is."""
    found: dict[str, Any] = json.loads((ROOT / "docs/merge-config.schema.json").read_text())
    return found


def test_every_option_is_documented(schema: dict[str, Any]) -> None:
    config = (ROOT / "docs/reference/config.md").read_text()
    options = schema["properties"]["options"]["properties"]
    assert {"torch_dtype", "geometry"} < options.keys()
    assert [name for name in options if f"`{name}`" not in config] == []
    strategies = (ROOT / "docs/reference/strategies.md").read_text()
    assert [branch["if"]["properties"]["strategy"]["const"] for branch in schema["allOf"]] == BUILT_IN_STRATEGIES
    for branch in schema["allOf"]:
        name = branch["if"]["properties"]["strategy"]["const"]
        assert f"\n## {name}\n" in strategies
        own = branch["then"]["properties"]["options"]["properties"]
        assert [option for option in own if f"`{option}`" not in strategies] == []
    built_in = [point for point in entry_points(group="modelmerger.plugins") if point.dist.name == "modelmerger"]
    sections = [section for plugin in built_in for section in getattr(plugin.load(), "sections", ())]
    assert sections
    for section in sections:
        assert f"\n## {section.name}\n" in config
        assert [f.name for f in attrs.fields(section.options) if f"| `{f.name}` |" not in config] == []


def test_every_key_of_validation_and_every_metric_is_documented() -> None:
    config = (ROOT / "docs/reference/config.md").read_text()
    assert [f.name for f in attrs.fields(ValidationSettings) if f"| `{f.name}` |" not in config] == []
    built_in = [point for point in entry_points(group="modelmerger.validators") if point.dist.name == "modelmerger"]
    assert len(built_in) == 5
    for validator in built_in:
        assert f"| `{validator.name}` | " in config
        module = validator.load()
        options = [f.name for f in attrs.fields(module.Options)] if hasattr(module, "Options") else []
        assert [name for name in options if f"| `{name}` |" not in config] == []
        found = {"lm_eval_acc": "higher"} if callable(module.metrics) else module.metrics  # of its default options
        assert [m for m, way in found.items() if f"`{m}` ({way})" not in config] == []


def test_every_command_is_documented(command: Callable[..., SimpleNamespace]) -> None:
    page = (ROOT / "docs/reference/command-line.md").read_text()
    names = re.findall(r"^  ([a-z-]+) ", command("--help").out.partition("Commands:")[2], re.MULTILINE)
    assert {"merge", "verify", "new-plugin"} < set(names)
    assert [name for name in names if f"modelmerger {name}" not in page] == []


def test_nothing_names_a_place_of_one_machine() -> None:
    assert not [page for page in WRITTEN if re.search(rf"/(work|farm|root)/|{os.sep}home{os.sep}", page.read_text())]
