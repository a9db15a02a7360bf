"""What a recipe says of dtype and chat template."""

from collections.abc import Mapping
from typing import Any

from modelmerger import Problem, shown

from modelmerger_plugins.mergekit_recipes.chat_templates import TEMPLATES

DTYPES = ("float16", "bfloat16", "float32", "float64")
ALIASES = {
    **dict.fromkeys(("bf16", "bfloat"), "bfloat16"),
    **dict.fromkeys(("fp16", "f16", "half"), "float16"),
    **dict.fromkeys(("fp32", "f32", "float", "single"), "float32"),
    **dict.fromkeys(("fp64", "f64", "double"), "float64"),
}
"""Names that mergekit refuses, and what they mean."""


def written_dtype(given: Mapping[str, Any], file: str, problems: list[Problem], notes: list[Problem]) -> str | None:
    """The dtype that is written; None: each tensor as the donor has it."""
    found = {
        key: _dtype(given[key], f"{file}: {key}", problems, notes) for key in ("out_dtype", "dtype") if given.get(key)
    }
    return found.get("out_dtype") or found.get("dtype")


def _dtype(given: Any, where: str, problems: list[Problem], notes: list[Problem]) -> str | None:
    name = str(given).removeprefix("torch.")
    if name not in DTYPES:
        advice = f"Write {ALIASES[name]}" if name in ALIASES else f"Write one of {', '.join(DTYPES)}"
        problems.append(Problem(f"'{shown(str(given), 40)}' is no dtype that models are merged in. {advice}", where))
        return None
    if name != given:
        notes.append(Problem(f"is read as {name}, so that config.json says that too", where, severity="note"))
    return name


def chat_template(given: Mapping[str, Any], file: str, problems: list[Problem], notes: list[Problem]) -> dict[str, Any]:
    """The option that gives the chat template as a text."""
    wanted, where = given.get("chat_template"), f"{file}: chat_template"
    if wanted is None:
        return {}
    if wanted == "auto":
        message = (
            "takes the tokenizer's own template here; mergekit takes the commonest. chat_template_from names another"
        )
        notes.append(Problem(message, where, severity="note"))
        return {}
    if isinstance(wanted, str) and wanted in TEMPLATES:
        return {"chat_template": TEMPLATES[wanted]}
    if isinstance(wanted, str) and len(wanted) >= 20 and "{" in wanted:
        return {"chat_template": wanted}
    names = ", ".join(("auto", *TEMPLATES))
    problems.append(Problem(f"must be one of {names}, or a template in Jinja, got {shown(repr(wanted), 40)}", where))
    return {}
