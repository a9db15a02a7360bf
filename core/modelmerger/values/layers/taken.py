"""Which layers of a model are taken: a range, or a list of ranges and single layers."""

Layers = tuple[int | tuple[int, ...], ...]
"""`[0, 4]` is a range, half-open; `[[0, 4], [2, 6]]` two of them; `[[0, 4], 3]` a range and a layer; `[0, 2, 4]` three
layers."""


def layer_numbers(layers: Layers) -> tuple[int, ...]:
    """The layers one by one, in their order."""
    parts = (layers,) if _is_range(layers) else layers
    return tuple(n for part in parts for n in ((part,) if isinstance(part, int) else range(*part)))  # type: ignore[arg-type]


def layers_problem(layers: Layers) -> str | None:
    """What is wrong with them, in a sentence; None for nothing."""
    for part in (layers,) if _is_range(layers) else layers:
        if isinstance(part, int):
            if part < 0:
                return f"must not be negative, got {part}"
        elif len(part) != 2 or part[0] < 0 or part[1] <= part[0]:  # type: ignore[operator]  # a range of numbers here
            return f"must be ranges [first, behind the last] or single layers, got {list(part)}"
    return None if layers else "must hold at least one layer"


def _is_range(layers: Layers) -> bool:
    return len(layers) == 2 and all(isinstance(number, int) for number in layers)
