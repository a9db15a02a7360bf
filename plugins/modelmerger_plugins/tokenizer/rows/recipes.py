"""Where each row of a viewed model comes from: a row of its own, or rows of models that it is made of."""

from collections.abc import Callable, Mapping, Sequence

from attrs import frozen
from modelmerger import ConfigError, Problem, Settings, shown

from modelmerger_plugins.tokenizer.options import Options
from modelmerger_plugins.tokenizer.rows.matching import Matching
from modelmerger_plugins.tokenizer.rows.shared import numbers
from modelmerger_plugins.tokenizer.rows.subtokens import pieces_of


@frozen(eq=False)
class Recipe:
    """What a row is made of."""

    sources: tuple[tuple[int, int], ...] = ()
    """The rows that it is the mean of, each with the index of its model; none at all for zeros."""


ZEROS = Recipe()
MADE = -1
"""What stands for a row that is made, in place of the number of a row."""


@frozen(eq=False)
class Rows:
    """The rows of one model as the merge sees them."""

    origins: Sequence[int]
    """For each row, the model's own row, or `MADE`."""
    made: Mapping[int, Recipe]
    """What each other row is made of."""

    @property
    def unchanged(self) -> bool:
        """Whether the rows are the model's own, in their order; there may be fewer."""
        return not self.made and all(own == row for row, own in enumerate(self.origins))


def rows_of(matching: Matching, settings: Settings, options: Options) -> list[Rows | None]:
    """The rows of each model; None for one that is left as it is.

    Raises `ConfigError` for tokens and models in `token_sources` that there are not.
    """
    base = len(settings.models) if settings.base_model is not None else None
    given = _given(matching, options)
    padding = _padding(matching, settings.donor)
    found: list[Rows | None] = []
    for index, own in enumerate(matching.own):
        if own is None:
            found.append(None)
            continue
        lacking = _rule(index, matching, base, settings, options)
        found.append(_rows(index, own, matching, given, padding, lacking))
    return found


def idle_sources(matching: Matching | None, options: Options) -> list[str]:
    """The tokens of `token_sources` that change no row: every model has them, and they are not forced."""
    known = [] if matching is None else [own for own in matching.own if own is not None]
    given = (options.token_sources or {}).items()
    return [t for t, entry in given if entry.get("force") is not True and all(t in own for own in known)]


def _rows(
    index: int,
    own: Mapping[str, int],
    matching: Matching,
    given: Mapping[str, tuple[Recipe | str, bool]],
    padding: Mapping[int, Recipe],
    lacking: Callable[[str], Recipe],
) -> Rows:
    origins, made = numbers([MADE], matching.rows) * matching.rows, dict[int, Recipe]()
    for token, row in matching.tokens.items():
        recipe, forced = given.get(token, (None, False))
        if isinstance(recipe, str):  # another token of each model's own
            recipe = Recipe(((index, own[recipe]),)) if recipe in own else None
        if recipe is not None and (forced or token not in own):
            origins[row], made[row] = MADE, recipe
        elif token in own and row not in made:
            origins[row] = own[token]
    for token, row in matching.tokens.items():
        if origins[row] == MADE and row not in made:
            made[row] = lacking(token)
    made |= padding
    for row, recipe in list(made.items()):
        if len(recipe.sources) == 1 and recipe.sources[0][0] == index:  # its own row, and no numbers to be made
            origins[row] = recipe.sources[0][1]
            del made[row]
    return Rows(origins, made)


def _rule(
    index: int, matching: Matching, base: int | None, settings: Settings, options: Options
) -> Callable[[str], Recipe]:
    """What a row is made of that a model lacks, by its token."""

    def owners(token: str) -> Recipe:
        having = [(i, own) for i, own in enumerate(matching.own) if own is not None and token in own]
        return Recipe(tuple((i, own[token]) for i, own in having))

    def of_base(token: str) -> Recipe:
        own = None if base is None else matching.own[base]
        return owners(token) if base is None or own is None or token not in own else Recipe(((base, own[token]),))

    if options.missing_tokens == "zero":
        return lambda _: ZEROS
    if options.missing_tokens == "base" or (options.missing_tokens == "owners" and settings.acts_on_base):
        return of_base
    if options.missing_tokens == "owners":
        return owners
    in_bytes = matching.union is not None and matching.union.by_bytes
    cut = pieces_of(matching.models[index], in_bytes=in_bytes)

    def of_pieces(token: str) -> Recipe:
        pieces = cut(token)
        return Recipe(tuple((index, row) for row in pieces)) if pieces else owners(token)

    return of_pieces


def _padding(matching: Matching, donor: int) -> dict[int, Recipe]:
    """What the rows are made of that are no token's: the donor's row there, or the mean of the source's."""
    taken = _of_tokens(matching.rows, matching.tokens)
    of_donor, of_source = matching.models[donor], matching.models[matching.source]
    donors, sources = (_of_tokens(model.rows or 0, model.tokens) for model in (of_donor, of_source))
    rows = range(of_source.rows or 0)
    unused = [row for row in rows if not sources[row]] or rows
    mean = Recipe(tuple((matching.source, row) for row in unused))
    found: dict[int, Recipe] = {}
    for row in (row for row in range(matching.rows) if not taken[row]):
        is_padding = row < (of_donor.rows or 0) and not donors[row]
        found[row] = Recipe(((donor, row),)) if is_padding else mean
    return found


def _of_tokens(rows: int, tokens: Mapping[str, int] | None) -> bytearray:
    """For each row, 1 where it is a token's, else 0; where nobody knows, all are."""
    if tokens is None:
        return bytearray(b"\1") * rows
    found = bytearray(rows)
    for row in tokens.values():
        found[row] = 1
    return found


def _given(matching: Matching, options: Options) -> dict[str, tuple[Recipe | str, bool]]:
    """Token → what its row is made of by the options, and whether models that have it get that too."""
    found: dict[str, tuple[Recipe | str, bool]] = {}
    for token, entry in (options.token_sources or {}).items():
        where = f"options.token_sources.{shown(token, 60)}"
        if token not in matching.tokens:
            raise ConfigError(Problem("is no token of the merged model's vocabulary. Leave it out", where))
        forced = entry.get("force") is True
        if entry.get("zero") is True:
            found[token] = ZEROS, forced
            continue
        wanted = entry.get("token", token)
        if "model" not in entry:
            if not any(wanted in own for own in matching.own if own is not None):
                raise ConfigError(Problem(f"no model has a token {wanted!r}. Name another one", where))
            found[token] = str(wanted), forced
            continue
        names = [model.checkpoint.name for model in matching.models]
        if entry["model"] not in names:
            raise ConfigError(Problem(f"no model is called {entry['model']!r}. Name one of: {', '.join(names)}", where))
        index = names.index(str(entry["model"]))
        row = wanted if isinstance(wanted, int) else (matching.own[index] or {}).get(wanted)
        if row is None or not 0 <= row < (matching.models[index].rows or 0):
            raise ConfigError(Problem(f"{entry['model']!r} has no token {wanted!r}. Name another one", where))
        found[token] = Recipe(((index, row),)), forced
    return found
