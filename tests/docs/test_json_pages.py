"""The tables of keys are what the commands print and the merge writes: no key more, none less, each of its type."""

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.plugins.report_page.test_compared import VALUES, write

DOCS = Path(__file__).parents[2] / "docs/reference"
ROW = re.compile(r"^\| `([^`]+)` \| ([^|]+) \| ", re.MULTILINE)
KINDS: dict[str, Callable[[Any], bool]] = {
    "text": lambda value: isinstance(value, str),
    "integer": lambda value: isinstance(value, int) and not isinstance(value, bool),
    "number": lambda value: isinstance(value, int | float) and not isinstance(value, bool),
    "boolean": lambda value: isinstance(value, bool),
    "object": lambda value: isinstance(value, dict),
    "mapping": lambda value: isinstance(value, dict),
    "list": lambda value: isinstance(value, list),
    "list of texts": lambda value: all(isinstance(one, str) for one in value),
    "list of integers": lambda value: all(isinstance(one, int) for one in value),
    "list of numbers": lambda value: all(isinstance(one, int | float) for one in value),
    "null": lambda value: value is None,
    "any": lambda _: True,
}
CONFIG = """
strategy: weighted
models: [{path: ./models/chat, weight: 0.6}, {path: ./models/formal, weight: 0.4}]
output_path: ./models/printed
validation:
  metrics: [perplexity]
  sample_size: 1
  max_new_tokens: 1
  test_prompts: ["كيف"]
  compare_with_sources: false
"""


def table(page: str, section: str = "") -> dict[str, str]:
    """Key → type, of a page's section; without one, of the whole page."""
    text = (DOCS / f"{page}.md").read_text(encoding="utf-8")
    if section:
        text = text.partition(f"\n## {section}\n")[2].partition("\n## ")[0]
    return dict(ROW.findall(text))


def keys(value: Any, documented: dict[str, str], at: str = "") -> Iterator[tuple[str, Any]]:
    """Every key of plain data with its value. What is documented as a mapping has keys of its own."""
    if isinstance(value, list):
        for one in value:
            yield from keys(one, documented, f"{at}[]" if at else "")
    elif isinstance(value, dict) and not documented.get(at, "").startswith(("mapping", "any")):
        for key, inner in value.items():
            path = f"{at}.{key}" if at else key
            yield path, inner
            yield from keys(inner, documented, path)


def compare(value: Any, documented: dict[str, str]) -> None:
    """Fails where data and table differ."""
    found = list(keys(value, documented))
    assert documented
    assert [key for key, _ in found if key not in documented] == [], "keys that the page does not have"
    seen = {key for key, _ in found}
    missing = [key for key, kind in documented.items() if key not in seen and "not always" not in kind]
    assert missing == [], "keys that only the page has"
    for key, one in found:
        kinds = documented[key].removesuffix(", not always").split(" or ")
        assert any(KINDS[kind](one) for kind in kinds), (key, kinds, one)


@pytest.fixture
def printed(place: Path, command: Callable[..., SimpleNamespace]) -> Callable[..., Any]:
    """What a command prints with `--json`."""
    (place / "merge.yaml").write_text(CONFIG, encoding="utf-8")

    def run(*arguments: str) -> Any:
        result = command(*arguments, "--json")
        assert result.status == 0, result.err
        return json.loads(result.out)

    return run


@pytest.mark.usefixtures("tokenizers_here")
def test_a_merge_prints_and_writes_what_the_pages_say(printed: Callable[..., Any], place: Path) -> None:
    report = printed("merge", "merge.yaml")
    compare(report, table("json", "merge"))
    compare(report["validation"], table("validation-json"))
    compare(json.loads((place / "models/printed/validation.json").read_bytes()), table("validation-json"))
    compare(json.loads((place / "models/printed/modelmerger.json").read_bytes()), table("manifest", "The manifest"))
    compare(printed("verify", "models/printed"), table("json", "verify"))


def test_a_plan_and_a_check_print_what_the_page_says(printed: Callable[..., Any]) -> None:
    compare(printed("check", "merge.yaml"), table("json", "check"))
    compare(printed("plan", "merge.yaml", "--no-trial"), table("json", "plan"))


def test_differences_are_printed_as_the_page_says(printed: Callable[..., Any]) -> None:
    compare(printed("diff", "models/chat", "models/extended"), table("json", "diff"))


def test_a_comparison_is_printed_as_the_page_says(printed: Callable[..., Any], tmp_path: Path) -> None:
    given = [write(tmp_path / name, *values) for name, values in VALUES.items()]
    other = write(tmp_path / "other", 1.0, 1.0, validators={"perplexity": "modelmerger 0.0.1"})
    for directories in (given, [*given, other]):
        compare(printed("compare", *directories), table("json", "compare"))


def test_plugins_print_what_the_page_says(printed: Callable[..., Any]) -> None:
    compare(printed("plugins"), table("json", "plugins"))
    compare(printed("plugins", "ties"), table("json", "plugins NAME"))
    compare(printed("plugins", "ties", "--check"), table("json", "plugins --check"))


def test_failures_print_what_the_page_says(place: Path, command: Callable[..., SimpleNamespace]) -> None:
    result = command("merge", "missing.yaml", "--json")
    assert result.status == 2
    compare(json.loads(result.out), table("json", "A command that fails"))


def test_every_command_with_json_is_on_the_page(command: Callable[..., SimpleNamespace]) -> None:
    listed = re.findall(r"^  ([a-z-]+) ", command("--help").out.partition("Commands:")[2], re.MULTILINE)
    assert "merge" in listed
    text = (DOCS / "json.md").read_text(encoding="utf-8")
    with_json = [name for name in listed if "--json" in command(name, "--help").out]
    assert [name for name in with_json if f"\n## {name}\n" not in text] == []
