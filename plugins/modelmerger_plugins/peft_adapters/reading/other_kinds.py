"""IA³, LoHa, LoKr and VeRA, against the base's shapes."""

import reprlib
from collections.abc import Iterator

from modelmerger_plugins.peft_adapters.changes.change import Change
from modelmerger_plugins.peft_adapters.changes.products import Hadamard, Kronecker, Vera
from modelmerger_plugins.peft_adapters.changes.vectors import Scaled
from modelmerger_plugins.peft_adapters.reading.misfits import MisfitError
from modelmerger_plugins.peft_adapters.reading.modules import PROJECTIONS, Keys
from modelmerger_plugins.peft_adapters.reading.pairing import Pairing, Shape


def ia3(pair: Pairing, module: str, keys: Keys) -> Iterator[tuple[str, Change]]:
    """Base tensors and changes: of the weight, and of the bias where outputs are scaled. Raises `MisfitError`."""
    key = keys["ia3_l"]
    tensor = pair.in_base(f"{module}.weight")
    shape, vector = pair.shape_in_base(tensor), pair.shape(key)
    if len(shape) != 2 or len(vector) != 2 or 1 not in vector:
        raise MisfitError(f"has shape {list(vector)}, and '{pair.base.name}' has {list(shape)}")
    scales_outputs = vector[1] == 1
    by_row = scales_outputs != pair.config.flag("fan_in_fan_out")
    if vector[0] * vector[1] != (shape[0] if by_row else shape[1]):
        raise MisfitError(f"has shape {list(vector)}, and '{pair.base.name}' has {list(shape)}")
    yield tensor, Scaled(key, by_row)
    if scales_outputs and (bias := pair.in_base(f"{module}.bias")) in pair.base.tensors:
        if (there := pair.shape_in_base(bias)) != vector[:1]:
            raise MisfitError(f"has shape {list(vector)}, and the bias of the base {list(there)}")
        yield bias, Scaled(key, by_row=False)


def loha(pair: Pairing, module: str, keys: Keys) -> Iterator[tuple[str, Change]]:
    """Base tensor and change. Raises `MisfitError`."""
    tensor = pair.in_base(f"{module}.weight")
    shape = pair.shape_in_base(tensor)
    roles = (("hada_w1_a", "hada_w1_b"), ("hada_w2_a", "hada_w2_b"))
    for one, two in roles:
        left, right = pair.shape(keys[one]), pair.shape(keys[two])
        matrices = len(shape) == len(left) == len(right) == 2
        if not matrices or (left[0], right[1]) != shape or left[1] != right[0]:
            raise MisfitError(f"is a factor of another shape than '{pair.base.name}' has, {list(shape)}")
    rank = pair.shape(keys["hada_w1_a"])[1]
    first, second = ((keys[one], keys[two]) for one, two in roles)
    yield tensor, Hadamard((first, second), pair.scale(module, rank, rank))


def lokr(pair: Pairing, module: str, keys: Keys) -> Iterator[tuple[str, Change]]:
    """Base tensor and change. Raises `MisfitError`."""
    tensor = pair.in_base(f"{module}.weight")
    shape = pair.shape_in_base(tensor)
    left, left_shape = _kronecker_factor(pair, keys, "lokr_w1")
    right, right_shape = _kronecker_factor(pair, keys, "lokr_w2")
    product = tuple(one * two for one, two in zip(left_shape, right_shape, strict=True))
    if len(shape) != 2 or product != shape or len(keys) != len(left) + len(right):
        raise MisfitError(f"is for a matrix of shape {list(product)}, and '{pair.base.name}' has {list(shape)}")
    rank = pair.config.rank(module)
    if type(rank) is not int or not 0 < rank < 1 << 63:
        raise MisfitError(f"has the rank {reprlib.repr(rank)} in the adapter's config")
    yield tensor, Kronecker(left, right, pair.config.scale(module, rank))


def _kronecker_factor(pair: Pairing, keys: Keys, role: str) -> tuple[tuple[str, ...], Shape]:
    """The keys of a factor, which is one matrix or a product of two, and its shape."""
    found = tuple(keys[own] for own in (role, f"{role}_a", f"{role}_b") if own in keys)
    shapes = [pair.shape(key) for key in found]
    sound = all(len(shape) == 2 for shape in shapes)
    if sound and len(shapes) == 1 and role in keys:
        return found, shapes[0]
    if sound and len(shapes) == 2 and role not in keys and shapes[0][1] == shapes[1][0]:
        return found, (shapes[0][0], shapes[1][1])
    raise MisfitError(f"is a part of a Kronecker factor that is no matrix ({', '.join(map(str, map(list, shapes)))})")


def vera(pair: Pairing, module: str, keys: Keys) -> Iterator[tuple[str, Change]]:
    """Base tensor and change. Raises `MisfitError`."""
    out_scales, rank_scales = keys["vera_lambda_b"], keys["vera_lambda_d"]
    tensor = pair.in_base(f"{module}.weight")
    shape = pair.shape_in_base(tensor)
    if any(key not in pair.adapter.tensors or len(pair.shape(key)) != 2 for key in PROJECTIONS):
        raise MisfitError(f"goes with {' and '.join(PROJECTIONS)}, which are not both there as matrices")
    (ranks, inputs), (outputs, columns) = (pair.shape(key) for key in PROJECTIONS)
    out, rank = pair.elements(out_scales), pair.elements(rank_scales)
    ways = [swapped for swapped in (False, True) if len(shape) == 2 and shape[swapped] == out <= outputs]
    fitting = [swapped for swapped in ways if shape[not swapped] <= inputs]
    if not fitting or not ranks == columns == rank == pair.config.rank(module):
        said = f"scales {out} outputs and {rank} ranks of projections {[outputs, columns]} and {[ranks, inputs]}"
        raise MisfitError(f"{said}, and '{pair.base.name}' has {list(shape)}")
    swapped = pair.config.flag("fan_in_fan_out") if len(fitting) > 1 else fitting[0]
    yield tensor, Vera(*PROJECTIONS, out_scales, rank_scales, out, shape[not swapped], swapped)
