"""Models that tie a matrix under other names than the donor, or store it twice, are seen as the donor stores it."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from modelmerger.planning.tensor_names import is_embedding, is_head, layer_of
from modelmerger.planning.ties.same_numbers import same_numbers
from modelmerger.planning.ties.tied_configs import says_tied
from modelmerger.planning.views import CheckpointView
from modelmerger.values.checkpoint import Checkpoint


def see_ties(checkpoints: Sequence[Checkpoint], donor: int) -> list[Checkpoint]:
    """The models, each with the matrices that it ties stored as the donor stores them, as far as names and bits tell.

    A tensor that only one of two models stores is a copy if it has the bits of another one of its shape, which both
    have; it counts as tied to that, unless the config of the model that lacks it says that nothing is tied. Where each
    of the two has one matrix that the other lacks, of one shape, and one of them is an embedding or an LM head by its
    name, it is one tied matrix under two names.
    Nothing within a layer is tied.
    """
    return [model if i == donor else _as_stored(model, checkpoints[donor]) for i, model in enumerate(checkpoints)]


def _as_stored(model: Checkpoint, donor: Checkpoint) -> Checkpoint:
    names = {name: name for name in model.tensors}
    aliases = dict(model.aliases)
    if may_tie(donor):
        unmatched = _unmatched(model, donor)
        copies = _copies(model, unmatched, [*filter(donor.tensors.__contains__, names), *unmatched])
        names = {name: name for name in names if name not in copies}
        aliases |= copies
    if may_tie(model):
        lacking = [name for name in _unmatched(donor, model) if name not in aliases]
        aliases |= _copies(donor, lacking, [name for name in donor.tensors if name in names])
    if may_tie(donor) and may_tie(model) and (other := _other_name(model, donor, names, aliases)):
        names = {other.get(name, name): name for name in names}
        aliases = {alias: other.get(tensor, tensor) for alias, tensor in aliases.items() if alias not in names}
    return (
        model if (names, aliases) == ({n: n for n in model.tensors}, model.aliases) else TieView(model, names, aliases)
    )


class TieView(CheckpointView):
    """Some tensors under other names or left out, and what is tied."""

    def __init__(
        self,
        model: Checkpoint,
        names: Mapping[str, str],
        aliases: Mapping[str, str],
        config: Mapping[str, Any] | None = None,
    ) -> None:
        """aliases: all that the view has. The others: as `CheckpointView` takes them."""
        super().__init__(model, names, config)
        self.aliases = {alias: tensor for alias, tensor in aliases.items() if tensor in self.tensors}


def may_tie(model: Checkpoint) -> bool:
    """Whether matrices of the model may be tied, as far as its config says."""
    return says_tied(model.donor.config) is not False


def _unmatched(model: Checkpoint, other: Checkpoint) -> list[str]:
    """The tensors outside the layers that the other model does not store."""
    return [name for name in model.tensors if name not in other.tensors and layer_of(name) is None]


def _copies(model: Checkpoint, unmatched: Collection[str], among: Sequence[str]) -> dict[str, str]:
    """Those of the unmatched tensors that are copies → the one among others that they are a copy of, itself no copy.

    A vector is a copy only where the matrix beside it is one: vectors of zeros are equal without being tied.
    """
    found: dict[str, str] = {}
    matrices = [name for name in unmatched if len(model.tensors[name].shape) > 1]
    vectors = [name for name in unmatched if name not in matrices]
    for name in (*matrices, *vectors):
        beside = f"{name.rpartition('.')[0]}.weight"
        if name in vectors and beside not in found:
            continue
        later = matrices[matrices.index(name) :] if name in matrices else vectors
        candidates = [other for other in among if other not in found and other not in later]
        if twin := _twin(model, name, candidates):
            found[name] = twin
    return found


def _twin(model: Checkpoint, name: str, among: Sequence[str]) -> str | None:
    info = model.tensors[name]
    alike = (other for other in among if model.tensors[other] == info and layer_of(other) is None)
    return next((other for other in alike if info.elements and same_numbers(model, name, other)), None)


def _other_name(
    model: Checkpoint, donor: Checkpoint, names: Collection[str], aliases: Mapping[str, str]
) -> dict[str, str]:
    """The one tied matrix whose name is another in the donor → that name; empty where there is no such one."""
    own = [name for name in names if name not in donor.tensors and _is_matrix(model, name)]
    theirs = [name for name in donor.tensors if name not in names and _is_matrix(donor, name)]
    theirs = [name for name in theirs if aliases.get(name) in (None, *own)]
    if len(own) != 1 or len(theirs) != 1 or model.tensors[own[0]].shape != donor.tensors[theirs[0]].shape:
        return {}
    known = any(is_embedding(name) or is_head(name) for name in (*own, *theirs))
    return {own[0]: theirs[0]} if known else {}


def _is_matrix(model: Checkpoint, name: str) -> bool:
    return layer_of(name) is None and len(model.tensors[name].shape) > 1
