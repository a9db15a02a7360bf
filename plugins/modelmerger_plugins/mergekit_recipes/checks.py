"""What stands against a slice: numbers of models, bases that are missing, models given twice, numbers out of range."""

from collections.abc import Iterator

from modelmerger import Problem, amount, shown

from modelmerger_plugins.mergekit_recipes.parameters import as_number, resolve
from modelmerger_plugins.mergekit_recipes.recipe import Recipe, Slice
from modelmerger_plugins.mergekit_recipes.references import Reference

RANGES = {
    "density": (0.0, 1.0, "A share of 0 keeps nothing: give the model weight 0; more than 1 means nothing"),
    "select_topk": (0.0, 1.0, "It is a share of the elements"),
    "gamma": (0.0, 1.0, "It is a share of the elements"),
}
"""Parameter → the smallest and the largest number that make sense, and what else to say."""


def problems_of_slice(
    recipe: Recipe, part: Slice, base: Reference | None, file: str, *, intent: bool
) -> Iterator[Problem]:
    """What is wrong or unusual with it. base: the base model that holds for it."""
    references = [source.reference for source in part.sources]
    yield from _twice(references, base, f"{file}: {part.where}")
    listed = base in references
    if base is not None and not listed:
        if recipe.method.base == "none" and not recipe.sliced:
            yield _ignored_base(recipe, base, f"{file}: base_model", intent=intent)
        elif recipe.method.base != "none" and recipe.sliced:
            message = (
                f"the base model {shown(base.text, 60)} is not among the sources, and {recipe.name} needs it there"
            )
            yield Problem(f"{message}. Add it", f"{file}: {part.where}.sources")
    if base is None and recipe.method.base == "required":
        yield Problem(f"{recipe.name} needs a base_model. Give one at the top", f"{file}: base_model")
    else:
        yield from _counts(recipe, part, base, file)
    yield from _ranges(recipe, part)


def unused_layers(recipe: Recipe, file: str) -> Iterator[Problem]:
    """Notes on the layers of a model that lie between those that are taken, and are in no slice."""
    taken: dict[str, set[int]] = {}
    for part in recipe.slices:
        for source in part.sources:
            taken.setdefault(source.reference.text, set()).update(range(*(source.layers or (0, 0))))
    for name, layers in taken.items():
        left = sorted(set(range(max(layers, default=0))) - layers)
        if left:
            which = f"layer {left[0]}" if len(left) == 1 else f"layers {', '.join(map(str, left[:8]))}"
            more = f" and {len(left) - 8} more" if left[8:] else ""
            message = f"{which}{more} of {shown(name, 60)} {'is' if len(left) == 1 else 'are'} in no slice"
            yield Problem(message, f"{file}: slices", severity="note")


def _ignored_base(recipe: Recipe, base: Reference, where: str, *, intent: bool) -> Problem:
    name = shown(base.text, 60)
    if intent:
        message = f"{name} gives config and tokenizer, and is not merged; mergekit would merge it as one more model"
        return Problem(message, where, severity="note")
    message = (
        f"mergekit takes {name} for one more input of {recipe.name}, which has no base. List it under models with its "
        "parameters if it is to be merged too; else drop base_model, or give --read intent=true"
    )
    return Problem(message, where)


def _twice(references: list[Reference], base: Reference | None, where: str) -> Iterator[Problem]:
    for i, reference in enumerate(references):
        if reference in references[:i]:
            message = (
                f"{shown(reference.text, 60)} is given twice, which mergekit refuses. Give it once, with both weights"
            )
            yield Problem(message, where)
            continue
        same = next((r for r in references[:i] if r.place == reference.place), None)
        if same is not None:
            message = f"'{shown(same.text, 50)}' and '{shown(reference.text, 50)}' are one model, spelt in two ways"
            yield Problem(f"{message}. Give it once", where)
        if base is not None and base != reference and base.place == reference.place:
            message = (
                f"'{shown(reference.text, 50)}' is the base model, which base_model spells '{shown(base.text, 50)}'"
            )
            yield Problem(f"{message}. Spell both alike", where)


def _counts(recipe: Recipe, part: Slice, base: Reference | None, file: str) -> Iterator[Problem]:
    aside = base if recipe.method.base != "none" else None
    count = sum(source.reference != aside for source in part.sources)
    fewest, most = recipe.method.fewest, recipe.method.most
    if fewest <= count and (most is None or count <= most):
        return
    how = "exactly" if fewest == most else "at least" if count < fewest else "at most"
    beside = " beside the base" if recipe.method.base != "none" else ""
    wanted = fewest if count < fewest else most or fewest
    message = f"{recipe.name} takes {how} {amount(wanted, 'model')}{beside}, {count} given"
    yield Problem(message, f"{file}: {part.where}")


def _ranges(recipe: Recipe, part: Slice) -> Iterator[Problem]:
    levels = [part.level, *recipe.outer]
    for name in recipe.method.parameters:
        low, high, why = RANGES.get(name, (0.0, 1.0, "Beyond it, slerp goes past the models, as in mergekit"))
        if name not in RANGES and not (name == "t" and recipe.name == "slerp"):
            continue
        of_sources = [source.level for source in part.sources] if name in recipe.method.per_input else []
        found = [entry for level in of_sources for entry in resolve(name, [level])] + resolve(name, levels)
        for entry in dict.fromkeys(found):
            values = entry.value if isinstance(entry.value, tuple) else (entry.value,)
            for value in values:
                try:
                    number = as_number(value)
                except ValueError:
                    continue
                if not low <= number <= high or (name == "density" and number == 0):
                    verb = "is usually" if name == "t" else "must be"
                    message = f"{name} {verb} from {low:g} to {high:g}, got {number:g}. {why}"
                    yield Problem(message, entry.where, severity="warning" if name == "t" else "error")
                    break
