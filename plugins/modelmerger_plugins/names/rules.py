"""Finds how names are to be rewritten to be those of another model, from names and shapes alone."""

from collections.abc import Collection, Iterable, Sequence

from attrs import field, frozen

from modelmerger_plugins.names.templates import Parts, Templates, common_end, common_start

MOST = 2000
"""Templates on either side, and rules that could be; with more, nothing is found, as no architecture has so many."""
MOST_PARTS = 50
"""Parts of a name; longer ones are left alone."""
MOST_TURNS = 50
"""Rules that are taken."""
FEWEST_WHEN_INSIDE = 2
"""Templates that a rule must move where it changes names behind the number of a layer."""
FEWEST_WHEN_OTHER = 3
"""Templates that a rule must move where it puts other words for words."""

CONTAINERS = {"model", "language_model", "text_model", "transformer"}
"""Words for the text tower as a whole, which say nothing of what is in it."""


@frozen
class Rule:
    """Names that begin with one thing begin with another thing in the other model."""

    ours: Parts
    """How names begin here."""
    theirs: Parts
    """How they begin there."""

    def __str__(self) -> str:
        ours, theirs = (".".join(parts) for parts in (self.ours, self.theirs))
        if not self.ours:
            return f"with '{theirs}.' in front"
        return f"with '{theirs}.' for '{ours}.'" if self.theirs else f"without '{ours}.'"

    @property
    def reach(self) -> int:
        """How much it changes: 0 for the order of words, 1 for words in one place that come or go, 2 for more."""
        ours, theirs = self._changed
        return 0 if sorted(ours) == sorted(theirs) else 2 if ours and theirs else 1

    @property
    def only_moves(self) -> bool:
        """Whether words are only added, only taken away, or put around a word that stays.

        Words for the text tower may also stand for each other.
        """
        ours, theirs = (set(parts) for parts in self._changed)
        return not ours or not theirs or bool(ours & theirs) or (ours | theirs) <= CONTAINERS

    @property
    def inside(self) -> bool:
        """Whether it changes something behind the number of a layer."""
        return "*" in self.ours[: common_start(self.ours, self.theirs)]

    @property
    def _changed(self) -> tuple[Parts, Parts]:
        start = common_start(self.ours, self.theirs)
        return self.ours[start:], self.theirs[start:]

    def apply(self, template: Parts) -> Parts | None:
        """The template in the other model; None where the rule does not concern it."""
        count = len(self.ours)
        return (*self.theirs, *template[count:]) if template[:count] == self.ours and len(template) > count else None


@frozen
class Found:
    """Rules, and what they do."""

    templates: dict[Parts, Parts] = field(factory=dict)
    """Template here → template there."""
    rules: list[Rule] = field(factory=list)
    """Those that do it, the ones that move most first."""
    doubts: list[Sequence[Rule]] = field(factory=list)
    """Rules between which nothing decides; nothing is done by them."""


def find_rules(ours: Templates, theirs: Templates, whole: bool) -> Found:
    """Rules that turn templates of one model into those of another.

    ours, theirs: what has no counterpart of the same name. whole: whether these are all tensors of a model, and not
    those that an adapter changes. A rule is taken if all shapes agree that are known, and if no other rule does as well
    for the same templates; of two, the one that changes less is taken (`reach`).
    """
    found = Found()
    ours, theirs = (
        {parts: held for parts, held in side.items() if len(parts) <= MOST_PARTS} for side in (ours, theirs)
    )
    if not ours or not theirs or max(len(ours), len(theirs)) > MOST:
        return found
    left, free = set(ours), set(theirs)
    moves = _candidates(ours, theirs, whole)
    for _ in range(MOST_TURNS):
        moves = {rule: _still(moved, left, free) for rule, moved in moves.items()}
        moves = {rule: moved for rule, moved in moves.items() if _is_enough(rule, moved, left, free)}
        if not moves:
            break
        most = max(map(len, moves.values()))
        best = [rule for rule, moved in moves.items() if len(moved) == most]
        rule = min(best, key=lambda one: one.reach)
        moved = moves[rule]
        rivals = [
            other for other in best if other is not rule and other.reach == rule.reach and _clash(moved, moves[other])
        ]
        if rivals:
            found.doubts.append([rule, *rivals])
        for doubtful in rivals:
            left -= moves[doubtful].keys()
            free -= set(moves[doubtful].values())
        left -= moved.keys()
        free -= set(moved.values())
        if rivals:
            continue
        found.rules.append(rule)
        found.templates.update(moved)
    for template in sorted(left):  # what has another shape, say a larger vocabulary, still has the same name
        for rule in found.rules:
            if (there := rule.apply(template)) in free:
                found.templates[template] = there
                free.discard(there)
                break
    return found


def _candidates(ours: Templates, theirs: Templates, whole: bool) -> dict[Rule, dict[Parts, Parts]]:
    """Rules that could be, and what each turns into what: those that leave as much as possible of a name's end."""
    by_end: dict[tuple[int, Parts], list[Parts]] = {}
    for there in theirs:
        for count in range(1, len(there) + 1):
            by_end.setdefault((there.count("*"), there[-count:]), []).append(there)
    by_start: dict[Parts, list[Parts]] = {}
    for here in ours:
        for count in range(len(here)):
            by_start.setdefault(here[:count], []).append(here)
    moves: dict[Rule, dict[Parts, Parts]] = {}
    for here in ours:
        ends = (by_end.get((here.count("*"), here[-count:]), ()) for count in range(len(here), 0, -1))
        for there in next(filter(None, ends), ()):
            same = common_end(here, there)
            rule = Rule(here[: len(here) - same], there[: len(there) - same])
            at_the_front = not rule.ours or not rule.theirs
            if rule in moves or not ((same > 1 or at_the_front) and (rule.only_moves or whole)):
                continue
            if len(moves) == MOST:
                return {}
            moves[rule] = _moved(rule, ours, theirs, by_start[rule.ours])
    return moves


def _moved(rule: Rule, ours: Templates, theirs: Templates, begun: Iterable[Parts]) -> dict[Parts, Parts]:
    """What the rule turns into what, where all known shapes agree. begun: templates that begin as it says."""
    moved = {}
    for here in begun:
        there = rule.apply(here)
        if there in theirs and _agree(ours, here, theirs, there):
            moved[here] = there
    return moved


def _still(moved: dict[Parts, Parts], left: Collection[Parts], free: Collection[Parts]) -> dict[Parts, Parts]:
    return {here: there for here, there in moved.items() if here in left and there in free}


def _agree(ours: Templates, here: Parts, theirs: Templates, there: Parts) -> bool:
    shared = ours[here].keys() & theirs[there].keys()
    pairs = [(ours[here][numbers], theirs[there][numbers]) for numbers in shared]
    return bool(pairs) and all(None in (a, b) or a == b for a, b in pairs)


def _is_enough(rule: Rule, moved: dict[Parts, Parts], left: Collection[Parts], free: Collection[Parts]) -> bool:
    if rule.only_moves:
        return len(moved) >= (FEWEST_WHEN_INSIDE if rule.inside else 1)
    if len(moved) < FEWEST_WHEN_OTHER:
        return False
    beginning, beginning_there = len(rule.ours), len(rule.theirs)
    here = [template for template in left if template[:beginning] == rule.ours]
    there = [template for template in free if template[:beginning_there] == rule.theirs]
    modules = {template[-2] for template in moved if len(template) > 1}
    return len(modules) > 1 and len(here) == len(there) == len(moved)


def _clash(one: dict[Parts, Parts], other: dict[Parts, Parts]) -> bool:
    """Whether two rules do different things with the same templates, or the same thing with different ones."""
    if any(here in other and other[here] != there for here, there in one.items()):
        return True
    back = {there: here for here, there in other.items()}
    return any(there in back and back[there] != here for here, there in one.items())
