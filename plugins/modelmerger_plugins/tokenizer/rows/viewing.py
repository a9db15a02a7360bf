"""The models of a merge as their rows are matched, and what says so to other hooks."""

from collections.abc import Iterable, Sequence

from modelmerger import Checkpoint, CheckpointView, ModelCompatibilityError, Problem, Settings

from modelmerger_plugins.tokenizer.options import UNION, Options, tokenizer_source
from modelmerger_plugins.tokenizer.rows.matching import Matching, matching_of
from modelmerger_plugins.tokenizer.rows.within import check_within, options_within
from modelmerger_plugins.tokenizer.updates import merged_as_updates


def matched(checkpoints: Sequence[Checkpoint], settings: Settings, options: Options) -> list[Checkpoint] | None:
    """The models with the rows of one vocabulary; None where they have them already, or nothing says which they have.

    Raises `InputError`, `ModelCompatibilityError` and `ConfigError` for what cannot be matched.
    """
    if settings.where:
        options = options_within(options)
    source = checkpoints.index(tokenizer_source(checkpoints, settings, options))
    joined = options.tokenizer_source == UNION and not any(model.name == UNION for model in checkpoints)
    multiple, made = options.pad_to_multiple_of, bool(options.token_sources)
    matching = matching_of(checkpoints, source, joined=joined, multiple=multiple, made=made)
    if matching is None:
        return None
    if settings.where:
        check_within(matching)
    from modelmerger_plugins.tokenizer.rows.recipes import rows_of
    from modelmerger_plugins.tokenizer.rows.saying import check_related
    from modelmerger_plugins.tokenizer.rows.view import RowsView

    _check_adapters(matching, settings)
    check_related(matching, within=bool(settings.where))
    views: list[Checkpoint] = []
    for checkpoint, own, rows in zip(checkpoints, matching.models, rows_of(matching, settings, options), strict=True):
        as_it_is = rows is None or (rows.unchanged and own.rows == matching.rows)
        views.append(checkpoint if as_it_is or rows is None else RowsView(checkpoint, rows, matching))
    return views


def matching_in(checkpoints: Iterable[Checkpoint]) -> Matching | None:
    """How the rows of these models, seen through views, are matched; None where their vocabularies are equal."""
    matching = any_matching_in(checkpoints)
    return matching if matching is not None and matching.differs else None


def any_matching_in(checkpoints: Iterable[Checkpoint]) -> Matching | None:
    """The same where only the number of rows is another one, or what some rows are made of, too."""
    for checkpoint in checkpoints:
        while isinstance(checkpoint, CheckpointView):
            from modelmerger_plugins.tokenizer.rows.view import RowsView

            if isinstance(checkpoint, RowsView):
                return checkpoint.matching
            checkpoint = checkpoint.checkpoint  # noqa: PLW2901 (what is viewed)
    return None


def _check_adapters(matching: Matching, settings: Settings) -> None:
    """Raises `ModelCompatibilityError` where updates are merged: they are about rows of their own base."""
    why = "the models' vocabularies differ" if matching.differs else "rows of tokens are added or made"
    for model in matching.models:
        if merged_as_updates([model.checkpoint], settings):
            message = (
                f"{why}, and updates of adapters are merged as they are. "
                "Set peft_config.merge_adapters: false, which folds each adapter into its base first."
            )
            raise ModelCompatibilityError(Problem(message, model.place))
