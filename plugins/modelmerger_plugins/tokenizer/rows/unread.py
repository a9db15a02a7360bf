"""Models whose tokenizers do not say which row is which token: of other formats, or damaged."""

from collections.abc import Sequence
from fnmatch import fnmatchcase

from modelmerger import Checkpoint, ModelCompatibilityError, Problem, list_directory, shown

from modelmerger_plugins.tokenizer.kinds import tokenizer_files
from modelmerger_plugins.tokenizer.rows.models import OfModel, tokenizer_directory

FORMATS = ("*.model", "*.spm", "*.tiktoken", "tekken.json")
TWO = ("target_vocab.json", "vocab-tgt.json")
"""Files of the vocabulary that a translator writes, where it is another one than it reads."""
FIRST = "give the models one vocabulary first (resize_token_embeddings)."
LOAD = "Load the tokenizer once with transformers and save it"
COPY = "Copy the model's own tokenizer files into it"
MEND = "Put the tokenizer there that the model was saved with"
SAVE = f"{LOAD}, which writes tokenizer.json."


def only_file(checkpoint: Checkpoint) -> str | None:
    """The name of the file that such a tokenizer is in; None where there is none."""
    names = tokenizer_files(tokenizer_directory(checkpoint))
    return next((name for name in names if any(fnmatchcase(name, pattern) for pattern in FORMATS)), None)


def what_is_there(model: OfModel) -> str:
    """What a model without known tokens has, for messages."""
    if model.flaw:
        return f"a {model.file} that cannot be used (it {shown(model.flaw, 90)})"
    file = only_file(model.checkpoint)
    what = "no tokenizer that says" if file is None else f"only {shown(file, 40)}, which does not say"
    return f"{what} which row is which token"


def way_out(model: OfModel) -> str:
    """What to do about it, without the end of the sentence."""
    if model.flaw:
        return MEND
    if only_file(model.checkpoint) is not None:
        return LOAD
    in_memory = model.checkpoint.donor.directory is None
    return "Save the model with its tokenizer and give its path" if in_memory else COPY


def check_one_vocabulary(models: Sequence[OfModel]) -> None:
    """Raises `ModelCompatibilityError` for models that read one vocabulary and write another."""
    problems = []
    for model in models:
        names = [] if model.directory is None else list_directory(model.directory)
        if found := next((name for name in TWO if name in names), None):
            message = (
                f"reads one vocabulary and writes another ({model.file}, {found}), and rows of two are not matched. "
                f"Merge models with the same files, or {FIRST}"
            )
            problems.append(Problem(message, model.checkpoint.place))
    if problems:
        raise ModelCompatibilityError(*problems)


def check_sizes(models: Sequence[OfModel]) -> None:
    """Raises `ModelCompatibilityError` for such models that have another number of rows than those with known tokens,
    or than each other.
    """
    sizes = {model.rows for model in models if model.rows is not None}
    known = {model.rows for model in models if model.tokens is not None}
    problems = []
    for model in models if len(sizes) > 1 else ():
        says_nothing = model.flaw or only_file(model.checkpoint) is not None
        if model.rows is not None and model.rows not in known and says_nothing:
            others = ", ".join(f"{size:,}" for size in sorted(sizes - {model.rows})[:4])
            what = what_is_there(model)
            end = f"{MEND}." if model.flaw else SAVE
            message = f"has {model.rows:,} rows, where others have {others}, and {what}. {end}"
            problems.append(Problem(message, model.checkpoint.place))
    if problems:
        raise ModelCompatibilityError(*problems)
