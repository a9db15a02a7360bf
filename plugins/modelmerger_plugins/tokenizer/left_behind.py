"""Names what is left behind: one note for each model, so that nothing is lost without a word."""

from collections.abc import Iterator, Sequence

from modelmerger import Checkpoint, FilesBeside, Problem, amount, models_behind, shown

from modelmerger_plugins.tokenizer.kinds import is_said, tokenizer_files
from modelmerger_plugins.tokenizer.modules.saying import about_modules
from modelmerger_plugins.tokenizer.options import Options, Sources

MOST_NAMED = 6


def problems_with_left_files(
    beside: FilesBeside, checkpoints: Sequence[Checkpoint], sources: Sources, options: Options
) -> Iterator[Problem]:
    """A note for each model of which files are left behind, and warnings about modules of an embedding model."""
    for checkpoint in models_behind(checkpoints):
        directory, left = checkpoint.donor.directory, beside.left.get(checkpoint.name, ())
        unwanted = [] if options.preserve_tokenizer else tokenizer_files(directory)
        names = [name for name in left if is_said(name) and name not in unwanted]
        if names:
            yield Problem(_note(names), checkpoint.place, severity="note")
    yield from about_modules(beside, checkpoints, sources.donor)


def _note(names: Sequence[str]) -> str:
    some = ", ".join(shown(name, 40) for name in names[:MOST_NAMED])
    more = f" and {len(names) - MOST_NAMED:,} more" if len(names) > MOST_NAMED else ""
    code = any(name.endswith(".py") for name in names)
    advice = "Code is never copied: copy what you trust yourself." if code else "Copy what the merged model needs."
    return f"{amount(len(names), 'file')} left behind: {some}{more}. {advice}"
