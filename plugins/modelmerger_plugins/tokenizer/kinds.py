"""Which files of a model's directory go along with the weights: those of known names, and nothing else."""

import os
from collections.abc import Iterable, Iterator, Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from modelmerger import (
    EMBEDDER_FILES,
    PROCESSOR_FILES,
    TEMPLATES_FOLDER,
    TOKENIZER_FILES,
    InputError,
    is_plain_path,
    list_directory,
    read_beside,
    read_json,
)

MODULES, MODULES_LIMIT = "modules.json", 1 << 20
MOST_MODULES = 64
OF_A_MODULE = (".json", ".txt", ".safetensors", ".model", ".vocab", ".tiktoken")
"""How the files end that the folder of a module may give."""
UNSAID = (
    *("config.json", "generation_config.json", "*.index.json", "README.md"),
    *("modelmerger.json", "validation.json", "report.html"),
    *("optimizer*", "scheduler*", "scaler*", "rng_state*", "random_states*", "training_args*", "trainer_state.json"),
    *("*_results.json", "events.out.*", "*.log", "latest", "zero_to_fp32.py", "global_step*"),
    *("checkpoint-*", "runs/", "logs/", "wandb/", ".*"),
)
"""Shell patterns of what is not worth naming as left behind: what is made anew, and what a training leaves."""


def tokenizer_files(directory: Path | None) -> list[str]:
    """The tokenizer and chat template files of a directory."""
    if directory is None:
        return []
    templates = directory / TEMPLATES_FOLDER
    further = list_directory(templates) if os.path.isdir(templates) and not os.path.islink(templates) else []
    return [
        *_matching(list_directory(directory), TOKENIZER_FILES),
        *(f"{TEMPLATES_FOLDER}/{name}" for name in _matching(further, ("*.jinja",))),
    ]


def processor_files(directory: Path | None) -> list[str]:
    """The files of image, video and audio processors of a directory."""
    return [] if directory is None else _matching(list_directory(directory), PROCESSOR_FILES)


def embedder_files(directory: Path | None) -> list[str]:
    """The files of a directory that say how outputs become an embedding, with the folders of the modules."""
    if directory is None:
        return []
    found = _matching(list_directory(directory), EMBEDDER_FILES)
    return found + [name for folder in module_folders(directory) for name in _of_module(directory, folder)]


def module_folders(directory: Path) -> list[str]:
    """The folders that `modules.json` names, as far as they are folders of this directory.

    None where it cannot be read: it is checked where it is copied.
    """
    try:
        modules = read_json(read_beside(directory, MODULES, MODULES_LIMIT) or b"[]", MODULES)
    except InputError:
        return []
    paths = [module.get("path") for module in modules if isinstance(module, dict)] if isinstance(modules, list) else []
    plain = [path for path in paths if isinstance(path, str) and is_plain_path(path)]
    return [path for path in dict.fromkeys(plain) if _is_folder(directory, path)][:MOST_MODULES]


def is_said(name: str) -> bool:
    """Whether it is worth naming that a file is left behind."""
    return not any(fnmatchcase(name, pattern) for pattern in UNSAID)


def _of_module(directory: Path, folder: str) -> Iterator[str]:
    for name in list_directory(directory / folder):
        if name.endswith(OF_A_MODULE) and is_plain_path(name) and os.path.isfile(directory / folder / name):
            yield f"{folder}/{name}"


def _is_folder(directory: Path, path: str) -> bool:
    """Whether a path leads to a folder below the directory, over no link."""
    steps = [directory.joinpath(*path.split("/")[: count + 1]) for count in range(path.count("/") + 1)]
    return all(os.path.isdir(step) and not os.path.islink(step) for step in steps)


def _matching(names: Iterable[str], patterns: Sequence[str]) -> list[str]:
    """Those of the names that a pattern fits, without what macOS keeps beside a file."""
    plain = [name for name in names if is_plain_path(name) and not name.startswith(".")]
    return [name for name in plain if any(_fits(name, pattern) for pattern in patterns)]


def _fits(name: str, pattern: str) -> bool:
    """Whether a pattern fits. Most are names as they are, which cost nothing to compare."""
    return fnmatchcase(name, pattern) if "*" in pattern else name == pattern
