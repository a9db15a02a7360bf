"""Constraints of a search: comparisons of sums and products of losses, read by a small parser and never run as code.

    comparison = sum ("<=" | "<" | ">=" | ">") sum
    sum        = product (("+" | "-") product)*
    product    = factor (("*" | "/") factor)*
    factor     = number | "-" factor | "(" sum ")" | word "(" name ["," name] ")"

The words are `loss(split)` and `loss(model, split)` in nats a token, `bits_per_byte` with the same arguments, and
`gap(split)`: how much worse the merged model is than the best source of that split, as a share. `*` in place of a split
stands for each of them, one after the other.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from attrs import field, frozen
from modelmerger import ConfigError, Problem

WORDS = {"loss": 2, "bits_per_byte": 2, "gap": 1}
"""Which words there are, and the most arguments of each."""
MERGED = ""
"""The name of the merged model among the losses."""
EACH = "*"
Number = Any
"""A float, or a tensor of torch that holds one."""
Losses = Mapping[tuple[str, str, str], Number]
"""Word, model and split → value. The merged model has no name."""
_TOKEN = re.compile(
    r"\s*(?:(?P<number>\d+\.?\d*(?:[eE][-+]?\d+)?|\.\d+)|(?P<sign><=|>=|<|>|[-+*/(),])|(?P<name>[^\s()<>,=]+))"
)
_MOST = 500
_DEEPEST = 20


@frozen
class Constraint:
    """A comparison that must hold."""

    text: str
    """As the config has it."""
    split: str
    """The split that `*` stands for; empty where there is none."""
    _excess: Callable[[Losses], Number] = field(repr=False, eq=False)
    uses: Sequence[tuple[str, str, str]] = ()
    """The losses that it compares."""

    @property
    def shown(self) -> str:
        """The comparison, with the split that it is about."""
        return self.text.replace(f"({EACH})", f"({self.split})").replace(f" {EACH})", f" {self.split})")

    def excess(self, losses: Losses) -> Number:
        """By how much it does not hold; at most 0 where it does."""
        return self._excess(losses)


def constraints_of(texts: Sequence[str], splits: Sequence[str], models: Sequence[str]) -> list[Constraint]:
    """The constraints of a config, each for every split that it is about. Raises `ConfigError` with every problem."""
    found: list[Constraint] = []
    problems = []
    for number, text in enumerate(texts):
        try:
            about = splits if re.search(rf"[(,]\s*\{EACH}\s*\)", text) else [MERGED]
            found += [_Reader(text, split, splits, models).comparison() for split in about]
        except ValueError as error:
            problems.append(Problem(str(error), f"tune.constraints[{number}]"))
    if problems:
        raise ConfigError(*problems)
    return found


class _Reader:
    """One comparison, read from left to right."""

    def __init__(self, text: str, split: str, splits: Sequence[str], models: Sequence[str]) -> None:
        self.text, self.split, self.splits, self.models = text, split, splits, models
        self.uses: list[tuple[str, str, str]] = []
        self.depth = 0
        self.tokens = _tokens(text)

    def comparison(self) -> Constraint:
        left = self.sum()
        sign = self.next()
        if sign not in ("<=", "<", ">=", ">"):
            raise self.wrong("<= or >=", sign)
        right = self.sum()
        if self.tokens:
            raise self.wrong("an end", self.tokens[0])
        low, high = (left, right) if sign[0] == "<" else (right, left)
        return Constraint(self.text, self.split, lambda losses: low(losses) - high(losses), tuple(self.uses))

    def sum(self) -> Callable[[Losses], Number]:
        value = self.product()
        while self.tokens and self.tokens[0] in ("+", "-"):
            value = _joined(self.next(), value, self.product())
        return value

    def product(self) -> Callable[[Losses], Number]:
        value = self.factor()
        while self.tokens and self.tokens[0] in ("*", "/"):
            value = _joined(self.next(), value, self.factor())
        return value

    def factor(self) -> Callable[[Losses], Number]:
        self.depth += 1
        if self.depth > _DEEPEST:
            raise ValueError(f"is nested deeper than {_DEEPEST} levels: {self.text[:80]!r}")
        token = self.next()
        if token == "-":
            inner = self.factor()
            value: Callable[[Losses], Number] = lambda losses: -inner(losses)  # noqa: E731 (one of several)
        elif token == "(":
            value = self.sum()
            self.due(")")
        elif token in WORDS:
            value = self.loss(token)
        elif re.fullmatch(r"[\d.]+(?:[eE][-+]?\d+)?", token):
            number = float(token)
            value = lambda _: number  # noqa: E731 (one of several)
        else:
            raise self.wrong(f"a number or one of {', '.join(WORDS)}", token)
        self.depth -= 1
        return value

    def loss(self, word: str) -> Callable[[Losses], Number]:
        self.due("(")
        names = [self.next()]
        while self.tokens and self.tokens[0] == ",":
            self.next()
            names.append(self.next())
        self.due(")")
        if len(names) > WORDS[word]:
            raise ValueError(f"{word} has {WORDS[word]} argument{'s' * (WORDS[word] > 1)} at most, got {len(names)}")
        model, split = (MERGED, names[0]) if len(names) == 1 else (names[0], names[1])
        if model != MERGED and model not in self.models:
            raise ValueError(f"no model is named {model!r}. There are {', '.join(self.models)}")
        split = self.split if split == EACH else split
        if split not in self.splits:
            raise ValueError(f"no split is named {split!r}. There are {', '.join(self.splits)}")
        use = word, model, split
        self.uses.append(use)
        return lambda losses: losses[use]

    def next(self) -> str:
        if not self.tokens:
            raise ValueError(f"ends too early: {self.text!r}. Write a comparison, such as gap(*) <= 0.05")
        return self.tokens.pop(0)

    def due(self, wanted: str) -> None:
        found = self.next()
        if found != wanted:
            raise self.wrong(repr(wanted), found)

    def wrong(self, wanted: str, found: str) -> ValueError:
        return ValueError(f"{found!r} stands where {wanted} is due, in {self.text[:80]!r}")


def _tokens(text: str) -> list[str]:
    if len(text) > _MOST:
        raise ValueError(f"has {len(text):,} characters, and {_MOST} at most are read")
    tokens, at = [], 0
    while text[at:].strip():
        found = _TOKEN.match(text, at)
        if found is None:
            raise ValueError(f"{text[at:].strip()[0]!r} has no meaning here, in {text[:80]!r}")
        tokens.append(found[found.lastgroup or 0])
        at = found.end()
    return tokens


def _joined(
    sign: str, left: Callable[[Losses], Number], right: Callable[[Losses], Number]
) -> Callable[[Losses], Number]:
    if sign == "+":
        return lambda losses: left(losses) + right(losses)
    if sign == "-":
        return lambda losses: left(losses) - right(losses)
    if sign == "*":
        return lambda losses: left(losses) * right(losses)
    return lambda losses: left(losses) / right(losses)
