"""The donor's tokenizer and processor files, byte for byte; nothing in them is executed or rendered."""

import os
from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from attrs import frozen
from modelmerger import Checkpoint, MergePlan, Problem, Settings, hookimpl, read_beside

PATTERNS = (
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
    "chat_template.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.*",
    "merges.txt",
    "*.model",
    "tekken.json",
    "preprocessor_config.json",
    "processor_config.json",
    "image_processor_config.json",
    "video_preprocessor_config.json",
    "feature_extractor_config.json",
    "normalizer.json",
)
TEMPLATES = "additional_chat_templates"
LIMIT = 256 << 20
CODE = (".py", ".pkl", ".pickle", ".bin", ".so")


@frozen(kw_only=True)
class Options:
    """preserve_tokenizer: whether the donor's tokenizer files are copied."""

    preserve_tokenizer: bool = True


@hookimpl
def declare_options() -> type:
    """The options of this plugin."""
    return Options


@hookimpl
def check_compatibility(checkpoints: Sequence[Checkpoint], settings: Settings) -> Iterable[Problem]:
    """A note where the donor has no tokenizer to copy."""
    donor = checkpoints[-1] if settings.base_model is not None else checkpoints[0]
    if settings.plugin_options["tokenizer"].preserve_tokenizer and not _files(donor.donor.directory):
        yield Problem("has no tokenizer files, so the merged model gets none.", donor.place, severity="note")


@hookimpl
def write_sidecars(plan: MergePlan, checkpoints: Sequence[Checkpoint], settings: Settings) -> Mapping[str, bytes]:
    """Every tokenizer, processor and chat template file of the donor."""
    directory = checkpoints[plan.donor].donor.directory
    if directory is None or not settings.plugin_options["tokenizer"].preserve_tokenizer:
        return {}
    contents = {name: read_beside(directory, name, LIMIT) for name in _files(directory)}
    return {name: content for name, content in contents.items() if content is not None}


def _files(directory: Path | None) -> list[str]:
    if directory is None:
        return []
    names = [name for name in os.listdir(directory) if any(fnmatchcase(name, pattern) for pattern in PATTERNS)]
    templates = directory / TEMPLATES
    if templates.is_dir() and not templates.is_symlink():
        names += [f"{TEMPLATES}/{name}" for name in os.listdir(templates) if name.endswith(".jinja")]
    return sorted(name for name in names if not name.endswith(CODE))
