"""Which files of a model's directory go along with the weights: those of known names, and nothing else."""

import os
from collections.abc import Collection, Iterable, Iterator, Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from modelmerger import (
    EMBEDDER_FILES,
    PROCESSOR_FILES,
    TEMPLATES_FOLDER,
    TOKENIZER_FILES,
    is_plain_path,
    list_directory,
)

from modelmerger_plugins.tokenizer.modules.listed import WEIGHTS, module_folders

SAYING_ELSE = ("tokenizer_config.json", "special_tokens_map.json", "normalizer.json")
"""Files of a tokenizer that say nothing of its vocabulary; their special tokens are compared elsewhere."""
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


def embedder_files(directory: Path | None, merged: Collection[str]) -> list[str]:
    """The files of a directory that say how outputs become an embedding, with the folders of the modules.

    merged: the folders whose weights are merged, and so made anew.
    """
    if directory is None:
        return []
    found = _matching(list_directory(directory), EMBEDDER_FILES)
    of_modules = [
        f"{folder}/{name}"
        for folder in module_folders(directory).values()
        for name in _of_module(directory, folder)
        if folder not in merged or not name.endswith((WEIGHTS, f"{WEIGHTS}.index.json"))
    ]
    return [*found, *of_modules]


def is_said(name: str) -> bool:
    """Whether it is worth naming that a file is left behind."""
    return not any(fnmatchcase(name, pattern) for pattern in UNSAID)


def _of_module(directory: Path, folder: str) -> Iterator[str]:
    for name in list_directory(directory / folder):
        if name.endswith(OF_A_MODULE) and is_plain_path(name) and os.path.isfile(directory / folder / name):
            yield name


def _matching(names: Iterable[str], patterns: Sequence[str]) -> list[str]:
    """Those of the names that a pattern fits, without what macOS keeps beside a file."""
    plain = [name for name in names if is_plain_path(name) and not name.startswith(".")]
    return [name for name in plain if any(_fits(name, pattern) for pattern in patterns)]


def _fits(name: str, pattern: str) -> bool:
    """Whether a pattern fits. Most are names as they are, which cost nothing to compare."""
    return fnmatchcase(name, pattern) if "*" in pattern else name == pattern
