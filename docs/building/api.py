"""A page for each public name, for each module of hook specifications, and the lists of them."""

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
CORE = ROOT / "core/modelmerger"

GROUPS = {
    "Merging": ("merger", "run", "tensors", "output.verification", "values.report", "values.plan"),
    "Errors": ("values.errors",),
    "Configs": ("config", "values.settings", "values.sections", "values.model_reference", "values.read_config"),
    "Options": ("values.options", "values.weights"),
    "Strategies": (
        *("hooks", "values.traits", "values.composition", "planning.composition", "planning.slices"),
        "engine.arithmetic",
    ),
    "Checkpoints": (
        *("values.checkpoint", "values.dtypes", "engine", "planning", "inputs.file_checkpoint", "inputs.elements"),
        *("inputs.tensor_selection", "inputs.torch_dtypes"),
    ),
    "Files": ("inputs", "values.file_identity", "values.plain_names"),
    "Output": ("output", "values.layout"),
    "Validation": ("values.findings", "values.subject", "validation"),
    "Executors": ("values.work", "worker"),
    "Words": ("",),
}
"""Group → beginnings of the modules whose public names are in it. The longest beginning counts."""

_HOOKS_PAGE = """\
# Hooks: {about}

What a plugin may define, with arguments, types and answers.
[Hooks](../hooks.md) says how they go together.

::: modelmerger.hooks.specs.{module}
    options:
      heading_level: 2
      show_root_heading: false
"""

HOOKS = {
    "doors": "Configs and commands",
    "models": "Models",
    "strategies": "Strategies",
    "measuring": "Measurements",
    "output": "Output",
    "validation": "Validation",
}
"""Module of hook specifications → what its hooks are about."""


def public_names() -> dict[str, str]:
    """Public name → module, within the core, that defines it."""
    tree = ast.parse((CORE / "__init__.py").read_text(encoding="utf-8"))
    (homes,) = (
        ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "_HOMES"
    )
    return {name: home for home, names in homes.items() for name in names}


def names_for_tests() -> list[str]:
    """What `modelmerger.testing` offers."""
    tree = ast.parse((CORE / "testing/__init__.py").read_text(encoding="utf-8"))
    (names,) = (
        ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__"
    )
    return list(names)


def group_of(home: str) -> str:
    """The group of a name, by the module that defines it."""
    fits = [
        (len(start), group)
        for group, starts in GROUPS.items()
        for start in starts
        if not start or home == start or home.startswith(f"{start}.")
    ]
    return max(fits)[1]


def pages() -> Iterator[tuple[str, str]]:
    """Address and Markdown of every generated page."""
    names = public_names()
    for name in names:
        yield page_of(name), f"---\ntitle: {name}\n---\n\n::: modelmerger.{name}\n"
    for name in names_for_tests():
        yield page_of(name, "testing"), f"---\ntitle: {name}\n---\n\n::: modelmerger.testing.{name}\n"
    for module, about in HOOKS.items():
        yield (
            f"reference/hooks/{module}.md",
            _HOOKS_PAGE.format(about=about.lower(), module=module),
        )
    yield "reference/api/index.md", _index(names)


def page_of(name: str, package: str = "") -> str:
    """The address of a name's page."""
    return f"reference/api/{package + '/' if package else ''}{name}.md"


def _index(names: dict[str, str]) -> str:
    lines = [
        "# Python API",
        "",
        "Everything here comes from `from modelmerger import …`, or, below, `from modelmerger.testing import …`.",
        "What no page here names is private and may change in any version.",
        "",
    ]
    for group in GROUPS:
        lines += [f"## {group}", "", "| name | what it is |", "|---|---|"]
        lines += [
            f"| [`{name}`]({name}.md) | {_summary(name, names[name])} |"
            for name in sorted(names, key=str.lower)
            if group_of(names[name]) == group
        ]
        lines.append("")
    lines += ["## For tests of plugins", "", "| name | what it is |", "|---|---|"]
    lines += [f"| [`{name}`](testing/{name}.md) | {_summary(name, '')} |" for name in names_for_tests()]
    return "\n".join([*lines, ""])


def _summary(name: str, home: str) -> str:
    """The first paragraph of a name's docstring."""
    files = [CORE / f"{home.replace('.', '/')}.py"] if home else sorted((CORE / "testing").rglob("*.py"))
    for file in files:
        said = _docstring(ast.parse(file.read_text(encoding="utf-8")), name)
        if said:
            return " ".join(said.split("\n\n")[0].split()).replace("|", "\\|")
    return ""


def _docstring(tree: ast.Module, name: str) -> str:
    body = tree.body
    for node, after in zip(body, [*body[1:], None], strict=True):
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and node.name == name:
            return ast.get_docstring(node) or ""
        if isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            is_it = any(isinstance(target, ast.Name) and target.id == name for target in targets)
            if is_it and isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant):
                return str(after.value.value)
    return ""


def navigation() -> list[dict[str, object]]:
    """The generated pages, as the site lists them."""
    names = public_names()
    groups: list[object] = [
        {group: [{name: page_of(name)} for name in sorted(names, key=str.lower) if group_of(names[name]) == group]}
        for group in GROUPS
    ]
    tests = {"For tests of plugins": [{name: page_of(name, "testing")} for name in names_for_tests()]}
    return [
        {"Every hook": [{about: f"reference/hooks/{module}.md"} for module, about in HOOKS.items()]},
        {"Python API": ["reference/api/index.md", *groups, tests]},
    ]
