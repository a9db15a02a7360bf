"""Models whose tokenizers are in formats that do not say which row is which token."""

from collections.abc import Sequence
from fnmatch import fnmatchcase

from modelmerger import Checkpoint, ModelCompatibilityError, Problem, shown

from modelmerger_plugins.tokenizer.kinds import tokenizer_files
from modelmerger_plugins.tokenizer.rows.models import OfModel, tokenizer_directory

FORMATS = ("*.model", "*.spm", "*.tiktoken", "tekken.json")
LOAD = "Load the tokenizer once with transformers and save it"
SAVE = f"{LOAD}, which writes tokenizer.json."


def only_file(checkpoint: Checkpoint) -> str | None:
    """The name of the file that such a tokenizer is in; None where there is none."""
    names = tokenizer_files(tokenizer_directory(checkpoint))
    return next((name for name in names if any(fnmatchcase(name, pattern) for pattern in FORMATS)), None)


def what_is_there(checkpoint: Checkpoint) -> str:
    """What a model without known tokens has, for messages."""
    file = only_file(checkpoint)
    what = "no tokenizer that says" if file is None else f"only {shown(file, 40)}, which does not say"
    return f"{what} which row is which token"


def check_sizes(models: Sequence[OfModel]) -> None:
    """Raises `ModelCompatibilityError` for such models that have another number of rows than those with known tokens,
    or than each other.
    """
    sizes = {model.rows for model in models if model.rows is not None}
    known = {model.rows for model in models if model.tokens is not None}
    problems = []
    for model in models if len(sizes) > 1 else ():
        if model.rows is not None and model.rows not in known and only_file(model.checkpoint) is not None:
            others = ", ".join(f"{size:,}" for size in sorted(sizes - {model.rows})[:4])
            what = what_is_there(model.checkpoint)
            message = f"has {model.rows:,} rows, where others have {others}, and {what}. {SAVE}"
            problems.append(Problem(message, model.checkpoint.place))
    if problems:
        raise ModelCompatibilityError(*problems)
