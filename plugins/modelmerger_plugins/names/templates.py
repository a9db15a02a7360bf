"""Names of tensors as templates: `model.layers.3.mlp.weight` is `model.layers.*.mlp.weight` with the number 3."""

from collections.abc import Iterator, Mapping

Parts = tuple[str, ...]
"""A dotted name, or the beginning of one, by its parts; "*" stands for a number."""
Numbers = tuple[str, ...]
"""What stands for the asterisks of a template."""
Shape = tuple[int, ...] | None
"""The shape of a tensor; None where it is not known."""
Templates = dict[Parts, dict[Numbers, Shape]]
"""Template → the tensors of such a name."""


def template_of(name: str) -> tuple[Parts, Numbers]:
    """The template of a name, and its numbers."""
    parts = name.split(".")
    numbers = tuple(part for part in parts if _is_number(part))
    return tuple("*" if _is_number(part) else part for part in parts), numbers


def templates(shapes: Mapping[str, Shape]) -> Templates:
    """The templates of names."""
    found: Templates = {}
    for name, shape in shapes.items():
        parts, numbers = template_of(name)
        found.setdefault(parts, {})[numbers] = shape
    return found


def name_of(parts: Parts, numbers: Numbers) -> str:
    """The name that a template has with these numbers."""
    left: Iterator[str] = iter(numbers)
    return ".".join(next(left) if part == "*" else part for part in parts)


def common_end(one: Parts, other: Parts) -> int:
    """How many of the last parts are the same."""
    count = 0
    for a, b in zip(reversed(one), reversed(other), strict=False):
        if a != b:
            break
        count += 1
    return count


def common_start(one: Parts, other: Parts) -> int:
    """How many of the first parts are the same."""
    return common_end(one[::-1], other[::-1])


def _is_number(part: str) -> bool:
    return part.isascii() and part.isdigit()
