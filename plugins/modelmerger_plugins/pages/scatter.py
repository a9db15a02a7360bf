"""Two numbers of several things against each other, as the numbers of an SVG picture."""

from collections.abc import Sequence

from attrs import frozen

from modelmerger_plugins.pages.plots import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH, Tick, number, round_ticks

SHADES = 6


@frozen
class Dot:
    """A thing with two numbers."""

    name: str
    """What it is called."""
    x: float
    """The number along the horizontal axis."""
    y: float
    """The number along the vertical axis."""


@frozen
class Drawn:
    """A dot in the picture."""

    dot: Dot
    """What it stands for."""
    number: int
    """Written beside it, from 1 on."""
    shade: int
    """Which of the colours."""
    at: tuple[float, float]
    """In units of the picture."""
    leftwards: bool
    """Whether the number is at the left of it, for want of room."""


@frozen
class Scatter:
    """A picture and its numbers."""

    across: str
    """The horizontal axis."""
    up: str
    """The vertical axis."""
    dots: Sequence[Drawn]
    """In the order that they were given in."""
    ticks_across: Sequence[Tick]
    """Of the horizontal axis."""
    ticks_up: Sequence[Tick]
    """Of the vertical axis."""

    @property
    def summary(self) -> str:
        """What somebody hears who does not see the picture."""
        said = (f"{one.dot.name} {number(one.dot.x)} and {number(one.dot.y)}" for one in self.dots)
        return f"{self.up} over {self.across}: {'; '.join(said)}."

    def cell(self, value: float) -> str:
        """A value as the picture's table shows it."""
        return number(value)


def scatter(across: str, up: str, dots: Sequence[Dot]) -> Scatter:
    """The picture of some dots, at least one, whose axes begin and end near them."""
    xs, ys = round_ticks(*_range([dot.x for dot in dots])), round_ticks(*_range([dot.y for dot in dots]))

    def x(value: float) -> float:
        return round(LEFT + (WIDTH - LEFT - RIGHT) * (value - xs[0]) / (xs[-1] - xs[0]), 1)

    def y(value: float) -> float:
        return round(TOP + (HEIGHT - TOP - BOTTOM) * (ys[-1] - value) / (ys[-1] - ys[0]), 1)

    drawn = [
        Drawn(dot, i + 1, i % SHADES, (x(dot.x), y(dot.y)), x(dot.x) > WIDTH - RIGHT - 20) for i, dot in enumerate(dots)
    ]
    return Scatter(
        across,
        up,
        drawn,
        [Tick(x(value), number(value)) for value in xs],
        [Tick(y(value), number(value)) for value in ys],
    )


def _range(values: Sequence[float]) -> tuple[float, float]:
    """From the smallest to the largest, or some room around where they are one."""
    low, high = min(values), max(values)
    return (low, high) if low < high else (low - (abs(low) / 10 or 1), high + (abs(high) / 10 or 1))
