"""The names of transformers' own model classes, read from its source: importing it would take seconds."""

import ast
import contextlib
import functools
import importlib.util
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from modelmerger import InputError, list_directory, read_beside

CAUSAL = ("ForCausalLM", "LMHeadModel")
"""How classes end that predict the next token."""
_EMBEDDINGS = (
    *("model.embed_tokens.weight", "transformer.wte.weight", "transformer.word_embeddings.weight"),
    *(f"{base}.embeddings.word_embeddings.weight" for base in ("bert", "roberta", "distilbert")),
    "gpt_neox.embed_in.weight",
)
"""What the embedding is called in models of transformers with a head."""
_TIED = r"_tied_weights_keys\s*=\s*(\{[^{}]*\})"
_MOST_OF_SOURCE = 1 << 20
_LONGEST_NAME = 200
"""Characters of the name of a file, longer than those of any family."""


def is_known(name: str, model_type: Any) -> bool:
    """Whether transformers has a model class of this name. model_type: as a config says it."""
    if not name.isidentifier():
        return False
    if f'"{name}"' in _auto_classes():
        return True
    folder = str(model_type).replace("-", "_")
    return (
        folder.isidentifier()
        and re.search(rf"^class {name}\(", source_of_transformers(f"{folder}/modeling_{folder}.py"), re.MULTILINE)
        is not None
    )


def unnamed(packages: Iterable[str], config: Mapping[str, Any]) -> list[str]:
    """Those of some packages that the source of a model's family does not name; none where there is no source."""
    source = source_of_family(config)
    return [package for package in packages if source and re.search(rf"\b{package}\b", source) is None]


def has_no_module(name: str, config: Mapping[str, Any], directory: Path | None = None) -> bool:
    """Whether it is certain that none of the modules of a model has this name: its source sets no such one.

    directory: where the model lies, with the source of classes of its own, of which nothing is run.
    """
    source = _source_of(config, directory)
    return bool(source) and re.search(rf"""self\.{name}\s*[:=]|["']{name}["']""", source) is None


def foreign_fronts(config: Mapping[str, Any], names: Iterable[str], directory: Path | None = None) -> Iterable[str]:
    """The part in front of all these names if the model's family in transformers has no such module, now or before.

    Or if the LM head or PEFT's model has it too, which classes of causal models have at the top. Or if nobody knows the
    class, and what stands behind the part is named as models of transformers are. directory: as in `has_no_module`.
    """
    all_names = list(names)
    fronts = {name.partition(".")[0] for name in all_names}
    if len(fronts) != 1 or not (front := fronts.pop()).isidentifier() or front in all_names:
        return ()
    source = _source_of(config, None)
    if not source:
        behind = [name.partition(".")[2] for name in all_names]
        return (front,) if _may_be_around(config, directory) and _is_around(front, behind, config) else ()
    if _architecture(config).endswith(CAUSAL) and any(
        name.startswith((f"{front}.lm_head.", f"{front}.base_model.model.")) for name in all_names
    ):
        return (front,)
    known = rf"""self\.{front}\b|["'^|(]{front}\b"""
    sources = source, source_of_transformers("../conversion_mapping.py")
    return () if any(re.search(known, text) for text in sources) else (front,)


def tied_by_class(config: Mapping[str, Any]) -> Mapping[str, str]:
    """The tensors that the class of a model ties to others, by its source: the one that files leave out → the other."""
    name = _architecture(config)
    body = re.search(rf"^class {re.escape(name)}\(.*?(?=^\S|\Z)", source_of_family(config), re.MULTILINE | re.DOTALL)
    found: dict[str, str] = {}
    for given in re.findall(_TIED, body[0] if name and body is not None else ""):
        with contextlib.suppress(ValueError, SyntaxError):
            found |= ast.literal_eval(given)
    return found


def _may_be_around(config: Mapping[str, Any], directory: Path | None) -> bool:
    """Whether no code of the model says what its modules are called."""
    return bool(config) and "auto_map" not in config and (directory is None or not _source_files(directory))


def _is_around(front: str, behind: Sequence[str], config: Mapping[str, Any]) -> bool:
    """Whether a part stands around a model of transformers, or around another part that does."""
    if _is_layout(front, behind, config):
        return True
    inner, *others = {name.partition(".")[0] for name in behind}
    if others or inner in behind:
        return False
    return _is_around(inner, [name.partition(".")[2] for name in behind], config)


def _is_layout(front: str, names: Sequence[str], config: Mapping[str, Any]) -> bool:
    """Whether names behind a part are those of a model of transformers: of its family, or of any if that is unknown."""
    if any(name.startswith("lm_head.") for name in names):
        return True
    family = source_of_family(config)
    if not family:
        return not {*_EMBEDDINGS}.isdisjoint(names)
    if not all("." in name for name in names):  # which are numbers of one module, and no modules of a model
        return False
    modules = {name.partition(".")[0] for name in names}
    return not _sets(family, front) and all(_sets(family, module) for module in modules)


def _sets(source: str, module: str) -> bool:
    return re.search(rf"self\.{re.escape(module)}\b", source) is not None


def source_of_family(config: Mapping[str, Any]) -> str:
    """The source of transformers for the type of a model; empty where there is none."""
    folder = str(config.get("model_type")).replace("-", "_")
    return source_of_transformers(f"{folder}/modeling_{folder}.py") if folder.isidentifier() else ""


def _source_of(config: Mapping[str, Any], directory: Path | None) -> str:
    """The source that has the model's class; empty where there is none."""
    architecture = _architecture(config)
    if not architecture:
        return ""
    source = source_of_family(config)
    if f"class {architecture}(" not in source and directory is not None:
        source = _own_source(directory)
    return source if f"class {architecture}(" in source else ""


def _source_files(directory: Path) -> list[str]:
    """The names of all files of source in a directory; none where it cannot be read."""
    try:
        return [name for name in list_directory(directory) if name.endswith(".py")]
    except InputError:
        return []


def _own_source(directory: Path) -> str:
    """All source in a directory; empty where it cannot be read: nobody else needs it."""
    try:
        texts = [read_beside(directory, name, _MOST_OF_SOURCE) or b"" for name in _source_files(directory)]
        return b"\n".join(texts).decode(errors="replace")
    except InputError:
        return ""


def _architecture(config: Mapping[str, Any]) -> str:
    found = config.get("architectures")
    return found[0] if isinstance(found, list) and found and isinstance(found[0], str) else ""


def _auto_classes() -> str:
    return source_of_transformers("auto/modeling_auto.py")


@functools.cache
def source_of_transformers(name: str) -> str:
    """The text of a module of transformers' models; empty where there is none."""
    spec = importlib.util.find_spec("transformers")
    folders = (spec.submodule_search_locations if spec is not None else None) or []
    for file in (Path(folder, "models", name) for folder in folders):
        if len(file.name) <= _LONGEST_NAME and file.is_file():
            return file.read_text(encoding="utf-8")
    return ""
