"""The names of transformers' own model classes, read from its source: importing it would take seconds."""

import functools
import importlib.util
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def is_known(name: str, model_type: Any) -> bool:
    """Whether transformers has a model class of this name. model_type: as a config says it."""
    if not name.isidentifier():
        return False
    if f'"{name}"' in _auto_classes():
        return True
    folder = str(model_type).replace("-", "_")
    return (
        folder.isidentifier()
        and re.search(rf"^class {name}\(", _source(f"{folder}/modeling_{folder}.py"), re.MULTILINE) is not None
    )


def has_no_module(name: str, config: Mapping[str, Any]) -> bool:
    """Whether it is certain that none of the modules of a model has this name: its family's source sets no such one."""
    architectures, folder = config.get("architectures"), str(config.get("model_type")).replace("-", "_")
    architecture = architectures[0] if isinstance(architectures, list) and architectures else None
    if not (isinstance(architecture, str) and folder.isidentifier()):
        return False
    source = _source(f"{folder}/modeling_{folder}.py")
    return f"class {architecture}(" in source and re.search(rf"self\.{name}\s*[:=]", source) is None


def _auto_classes() -> str:
    return _source("auto/modeling_auto.py")


@functools.cache
def _source(name: str) -> str:
    """The text of a module of transformers' models; empty where there is none."""
    spec = importlib.util.find_spec("transformers")
    folders = (spec.submodule_search_locations if spec is not None else None) or []
    for file in (Path(folder, "models", name) for folder in folders):
        if file.is_file():
            return file.read_text(encoding="utf-8")
    return ""
