"""The page of faults names the tests that hold each row: those whose docstring begins with the row's name.

`python -m tests.docs.faults` writes the last column of the table anew.
"""

import ast
import functools
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs/explanation/faults.md"
_ROW = re.compile(r"\| ([A-D][0-9]+) \| (.+?) \| (.+?) \| (.*?) ?\|")
_NAMES = re.compile(r"([A-D][0-9]+(?:, [A-D][0-9]+)*)(?:[:.]|$)")


@functools.cache
def held() -> dict[str, list[str]]:
    """Row → the files of the tests that hold the row."""
    found: dict[str, list[str]] = {}
    for file in sorted((ROOT / "tests").rglob("test_*.py")):
        functions = [node for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.FunctionDef)]
        said = [(ast.get_docstring(node) or "").partition("\n")[0] for node in functions if _is_test(node)]
        for row in {row for text in said if (named := _NAMES.match(text)) for row in named[1].split(", ")}:
            found.setdefault(row, []).append(file.relative_to(ROOT).as_posix())
    return found


def _is_test(node: ast.FunctionDef) -> bool:
    return node.name.startswith("test_")


def rows(text: str) -> list[str]:
    """The names of the rows of a page, in its order."""
    return [match[1] for match in map(_ROW.fullmatch, text.split("\n")) if match]


def written_anew(text: str) -> str:
    """The page with the tests that hold each row."""
    tests = held()

    def line(text: str) -> str:
        match = _ROW.fullmatch(text)
        if match is None:
            return text
        name, fault, promise, _ = match.groups()
        links = [f"[{Path(path).stem}](../../{path})" for path in tests.get(name, [])]
        return f"| {name} | {fault} | {promise} | {', '.join(links)} |"

    return "\n".join(map(line, text.split("\n")))


if __name__ == "__main__":
    PAGE.write_text(written_anew(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
