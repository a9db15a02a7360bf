"""What the config says of how the names begin that are meant, where names and shapes alone do not tell."""

from collections.abc import Mapping

from attrs import frozen
from modelmerger import Checkpoint, ModelCompatibilityError, Problem, shown

from modelmerger_plugins.names.matching import Matching, match
from modelmerger_plugins.names.templates import Shape


@frozen
class Prefixes:
    """How names of tensors that are merged begin."""

    ours: str | None
    """In the model; None where nothing is said of that."""
    theirs: str | None
    """In the donor."""

    @classmethod
    def of(cls, model: Checkpoint, donor: Checkpoint, of_model: str | None, of_donor: str | None) -> "Prefixes | None":
        """What the config says of the two; None where it says nothing, or where both have the same.

        Raises `ModelCompatibilityError` for a prefix that no tensor has.
        """
        if of_donor is not None and not _begin(donor, of_donor):
            raise ModelCompatibilityError(_nobody(donor.place, f"'{donor.name}'", of_donor))
        if of_model == of_donor:
            return None
        if of_model is None:
            return cls(None, of_donor)
        here, there = _begin(model, of_model), _begin(donor, of_model)
        if not here and (not there or of_donor is not None):
            both = f"'{model.name}'" if of_donor is not None else f"'{model.name}' and '{donor.name}'"
            raise ModelCompatibilityError(_nobody(model.place, both, of_model))
        if of_donor is not None:
            return cls(of_model, of_donor)
        if here and there:
            return None if of_model else cls(of_model, None)
        return cls(of_model, None) if here else cls(None, of_model)

    def matched(self, ours: Mapping[str, Shape], theirs: Mapping[str, Shape]) -> Matching:
        """Which name of the model stands for which of the donor; names that both have stand for themselves."""
        if self.ours is not None and self.theirs is not None:
            moved = {name: self.theirs + name.removeprefix(self.ours) for name in ours if name.startswith(self.ours)}
            same = {name: name for name in ours if name in theirs and name not in moved}
            return Matching({**same, **{name: other for name, other in moved.items() if other in theirs}}, moved)
        here = {name: shape for name, shape in ours.items() if name in theirs or name.startswith(self.ours or "")}
        there = {name: shape for name, shape in theirs.items() if name in ours or name.startswith(self.theirs or "")}
        return match(here, there, whole=True)


def _begin(checkpoint: Checkpoint, prefix: str) -> bool:
    return any(name.startswith(prefix) for name in checkpoint.tensors)


def _nobody(place: str, who: str, prefix: str) -> Problem:
    has = "have" if " and " in who else "has"
    return Problem(f"{who} {has} no tensor whose name begins with the prefix {shown(prefix, 60)}. Check it", place)
