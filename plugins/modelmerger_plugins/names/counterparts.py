"""A model with the names of the donor, where its own are not the same."""

from modelmerger import Checkpoint, ModelCompatibilityError, Problem, Settings, amount, shown

from modelmerger_plugins.names.expert_layouts import with_experts_of
from modelmerger_plugins.names.experts import fused_in_one
from modelmerger_plugins.names.matching import Matching, match
from modelmerger_plugins.names.prefixes import Prefixes
from modelmerger_plugins.names.templates import Shape
from modelmerger_plugins.names.view import RenamedView

MOST_RULES = 2
"""Rules that a note says."""


def like(donor: Checkpoint, model: Checkpoint, settings: Settings, prefixes: Prefixes | None) -> Checkpoint:
    """The model with the donor's names and its layout of experts; itself where nothing is otherwise.

    prefixes: what the config says of how the names begin. Raises `ModelCompatibilityError` for names that cannot go
    together.
    """
    model = with_experts_of(donor, model, _notes(model))
    found = Matching({name: name for name in model.tensors})
    if prefixes is not None:
        found = prefixes.matched(_shapes(model), _shapes(donor) | _tied(donor))
        fits = any(name != other for names in (found.names, found.others) for name, other in names.items())
        if not fits and not found.doubts:
            raise ModelCompatibilityError(_unfit(donor, model))
    elif not model.tensors.keys() <= donor.tensors.keys():
        found = match(_shapes(model), _shapes(donor) | _tied(donor), whole=True, config=donor.donor.config)
    if found.doubts:
        raise ModelCompatibilityError(_unclear(donor, model, found))
    new = {name: found.names.get(name) or found.others.get(name, name) for name in model.tensors}
    if settings.options.missing_tensors == "error" and (problem := fused_in_one(donor, model, new.values())):
        raise ModelCompatibilityError(problem)
    taken = set(new.values())
    left = {name: shape for name, shape in _shapes(donor).items() if name not in taken}
    aliases = match(_tied(model), left, whole=False).names if left else {}
    moved = any(name != other for names in (new, aliases) for name, other in names.items())
    if not moved or len(taken) < len(new):
        return model
    names = {other: name for name, other in new.items()}
    return RenamedView(model, names, aliases, (*_notes(model), *_note(donor, model, found)))


def _notes(model: Checkpoint) -> tuple[Problem, ...]:
    return model.notes if isinstance(model, RenamedView) else ()


def _shapes(checkpoint: Checkpoint) -> dict[str, Shape]:
    return {name: info.shape for name, info in checkpoint.tensors.items()}


def _tied(checkpoint: Checkpoint) -> dict[str, Shape]:
    """Names that stand for a tensor of another name, with its shape."""
    return {alias: checkpoint.tensors[name].shape for alias, name in checkpoint.aliases.items()}


def _note(donor: Checkpoint, model: Checkpoint, found: Matching) -> tuple[Problem, ...]:
    changed = {name: other for name, other in found.names.items() if name != other}
    if not changed:
        return ()
    if found.rules:
        said = [shown(rule, 70) for rule in found.rules[:MOST_RULES]]
        how = ", ".join(said) + (", …" if len(found.rules) > MOST_RULES else "")
    else:
        name = min(changed, key=len)
        how = f"with {shown(changed[name], 60)} for {shown(name, 60)}"
    message = f"{amount(len(changed), 'tensor')} under the names of '{donor.name}': {how}."
    return (Problem(message, model.place, severity="note"),)


def _unfit(donor: Checkpoint, model: Checkpoint) -> Problem:
    message = (
        f"has no tensor that fits one of '{donor.name}' with the prefix that the config gives. "
        "Check the prefix, and that both are of one architecture."
    )
    return Problem(message, model.place)


def _unclear(donor: Checkpoint, model: Checkpoint, found: Matching) -> Problem:
    one, other, *_ = found.doubts[0]
    parts = one.theirs if one.ours != other.ours or one.theirs != other.theirs else ()
    example = f", such as {shown('.'.join(parts), 50)}." if parts else ""
    message = (
        f"has other names of tensors than '{donor.name}', and it is unclear which of its tensors are meant: "
        f"{shown(one, 60)} or {shown(other, 60)} they would fit as well. Give the model a prefix{example}."
    )
    return Problem(message, model.place)
