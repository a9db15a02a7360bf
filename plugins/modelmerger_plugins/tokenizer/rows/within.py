"""Vocabularies of the models of a merge within another one, which writes no tokenizer files of its own."""

from attrs import evolve
from modelmerger import ModelCompatibilityError, Problem, shown

from modelmerger_plugins.tokenizer.options import Options
from modelmerger_plugins.tokenizer.rows.matching import Matching


def options_within(options: Options) -> Options:
    """The options of such a merge: its vocabulary is that of the model that gives its config, whose files go along.

    The others are the outermost merge's, as far as they are not about that merge's own models and rows.
    """
    return evolve(options, tokenizer_source="base", token_sources=None, pad_to_multiple_of=None)


def check_within(matching: Matching) -> None:
    """Raises `ModelCompatibilityError` where the files of that model would contradict the rows."""
    for reserved, name in matching.renamed.items():
        message = (
            f"has {shown(reserved, 40)} where another model has {shown(name, 40)}, and within another merge tokens "
            "keep their names. Publish this merge first, and give the path of what it wrote."
        )
        raise ModelCompatibilityError(Problem(message, matching.models[matching.source].place))
