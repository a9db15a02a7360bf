"""The rows of a merged model, and which row of each model is the same token's."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from attrs import evolve, field, frozen
from modelmerger import Checkpoint, InputError, ModelCompatibilityError, Problem, shown

from modelmerger_plugins.tokenizer.rows.models import OfModel, of_models
from modelmerger_plugins.tokenizer.rows.unread import SAVE, check_one_vocabulary, check_sizes, only_file, what_is_there
from modelmerger_plugins.tokenizer.vocabularies import MOST_TOKENS

if TYPE_CHECKING:
    from modelmerger_plugins.tokenizer.union.joining import Union

MULTIPLES = (128, 64, 8)
"""What the number of rows of the merged model is a multiple of, the first that divides that of the source."""


@frozen(eq=False, repr=False)
class Matching:
    """The vocabulary of the merged model, and where the models have its tokens."""

    models: Sequence[OfModel]
    """What each model says."""
    source: int
    """The index of the model whose vocabulary is taken, or extended."""
    tokens: Mapping[str, int]
    """Token → row of the merged model."""
    rows: int
    """How many rows the merged model has."""
    own: Sequence[Mapping[str, int] | None]
    """For each model, token of the merged model → row of the model; None for one that is left as it is."""
    assumed: Mapping[int, int] = field(factory=dict)
    """Models without a tokenizer → the model whose rows theirs are taken to be."""
    renamed: Mapping[str, str] = field(factory=dict)
    """Reserved tokens of the source → what another model has made of them."""
    union: "Union | None" = None
    """What was joined; None where one model's vocabulary is taken as it is."""
    differs: bool = True
    """Whether vocabularies differ; else only the number of rows is another one, or what some rows are made of."""

    @property
    def checkpoints(self) -> list[Checkpoint]:
        """The models as they were before their rows were matched."""
        return [model.checkpoint for model in self.models]

    def rows_from(self, index: int) -> dict[int, int]:
        """Row of a model → row of the same token in the merged model; nothing for tokens that this lacks."""
        own = self.own[index] or {}
        return {own[token]: row for token, row in self.tokens.items() if token in own}


def matching_of(
    checkpoints: Sequence[Checkpoint],
    source: int,
    *,
    joined: bool = False,
    multiple: int | None = None,
    made: bool = False,
) -> Matching | None:
    """How the rows go together; None where all models have the same, or nothing says what they are.

    source: the index of the model whose vocabulary the merged model has. joined: with what others add to it. multiple:
    what the number of rows must be a multiple of. made: whether rows are made whatever the models have. Raises
    `InputError` and `ModelCompatibilityError` for what cannot be matched.
    """
    models = of_models(checkpoints)
    check_sizes(models)
    differs, resized = differ(models), _have_other_sizes(models) or _is_padded(models[source], multiple)
    if not differs and not resized and not made:
        return None
    from modelmerger_plugins.tokenizer.rows.reserved import renamed_tokens
    from modelmerger_plugins.tokenizer.rows.shared import shared

    check_rows(models)
    if differs:
        check_one_vocabulary(models)
    models, assumed = _assumed(shared(models, source), source)
    of_source = models[source]
    if of_source.tokens is None or of_source.rows is None:
        why = "the merge makes rows of tokens (token_sources)"
        if differs or resized:
            why = "the models' vocabularies differ" if differs else "the merge pads rows (pad_to_multiple_of)"
        way_out = WAY_OUT if only_file(of_source.checkpoint) is None or of_source.flaw else SAVE
        message = f"has {what_is_there(of_source)}, and {why}. {way_out}"
        raise ModelCompatibilityError(Problem(message, of_source.checkpoint.place))
    others = [model.tokens for i, model in enumerate(models) if i != source and model.tokens is not None]
    renamed = renamed_tokens(of_source.tokens, others)
    tokens = of_source.tokens
    own: list[Mapping[str, int] | None] = [model.tokens for model in models]
    if renamed:
        tokens = {renamed.get(token, token): row for token, row in tokens.items()}
        own[source] = {token: row for token, row in of_source.tokens.items() if token not in renamed}
    if not joined:
        rows = rows_for(max(tokens.values()) + 1, of_source.rows, multiple)
        return Matching(models, source, tokens, rows, own, assumed, renamed, differs=differs)
    from modelmerger_plugins.tokenizer.rows.unions import union_of_models

    union, numbers = union_of_models(models, source, renamed)
    for position, of_document in enumerate(union.own):
        for index in (index for index, number in enumerate(numbers) if number == position and index != source):
            own[index] = of_document
    rows = rows_for(max(union.tokens.values()) + 1, of_source.rows, multiple)
    return Matching(models, source, union.tokens, rows, own, assumed, renamed, union, differs)


WAY_OUT = "Name a model that has one in options.tokenizer_source, or copy the tokenizer's files beside the weights."


def differ(models: Sequence[OfModel]) -> bool:
    """Whether there are models with different vocabularies, as far as their tokens are known."""
    known = [model.tokens for model in models if model.tokens is not None]
    return any(tokens is not known[0] and tokens != known[0] for tokens in known[1:])


def _have_other_sizes(models: Sequence[OfModel]) -> bool:
    """Whether models whose tokens are known have other numbers of rows."""
    return len({model.rows for model in models if model.tokens is not None}) > 1


def check_rows(models: Sequence[OfModel]) -> None:
    """Raises `InputError` for models with fewer rows than tokens, each with both numbers."""
    problems = []
    for model in models:
        most = max((model.tokens or {}).values(), default=-1)
        if model.rows is not None and most >= model.rows:
            token = next(token for token, row in (model.tokens or {}).items() if row == most)
            way = f"Call resize_token_embeddings({most + 1}) on the model and save it, or use"
            if most > MOST_TOKENS:
                way = "No vocabulary has so many, so the file is damaged: use"
            message = (
                f"has tokens up to {shown(f'{most:,}', 30)} ({shown(token, 30)}), and the embedding of "
                f"'{model.checkpoint.name}' has {model.rows:,} rows. {way} the tokenizer that it was saved with."
            )
            problems.append(Problem(message, model.place))
    if problems:
        raise InputError(*problems)


def rows_for(count: int, of_source: int, multiple: int | None = None) -> int:
    """The rows of a matrix for so many tokens: as many as the source has, or more, rounded up as those are.

    multiple: what the number of tokens is rounded up to instead.
    """
    if multiple is None:
        if count <= of_source:
            return of_source
        multiple = next((multiple for multiple in MULTIPLES if of_source % multiple == 0), 1)
    return -(-count // multiple) * multiple


def _is_padded(source: OfModel, multiple: int | None) -> bool:
    """Whether the merged model has another number of rows than the source, or nobody knows."""
    if multiple is None or source.rows is None:
        return False
    return source.tokens is None or rows_for(max(source.tokens.values()) + 1, source.rows, multiple) != source.rows


def _assumed(models: Sequence[OfModel], source: int) -> tuple[list[OfModel], dict[int, int]]:
    """Models that do not say their tokens are taken to have those of a model with as many rows, the source first."""
    known = [source, *(i for i in range(len(models)) if i != source)]
    found, assumed = list(models), dict[int, int]()
    for index, model in enumerate(models):
        if model.tokens is not None or model.rows is None:
            continue
        for other in known:
            if models[other].tokens is not None and models[other].rows == model.rows:
                found[index] = evolve(model, tokens=models[other].tokens)
                assumed[index] = other
                break
    return found, assumed
