"""Finds how names are to be rewritten to be those of another model, from names and shapes alone."""

from collections import Counter
from collections.abc import Collection, Iterable, Sequence

from attrs import field, frozen

from modelmerger_plugins.names.templates import Parts, Templates, common_end, common_start

MOST = 2000
"""Templates on either side; with more, nothing is looked for, as no architecture has so many."""
FEWEST_WHEN_INSIDE = 2
"""Templates that a rule must move where it changes names behind the number of a layer."""
FEWEST_WHEN_OTHER = 3
"""Templates that a rule must move where it puts other words for words."""


@frozen
class Rule:
    """Names that begin with one thing begin with another thing in the other model."""

    ours: Parts
    """How names begin here."""
    theirs: Parts
    """How they begin there."""

    def __str__(self) -> str:
        ours, theirs = (f"'{'.'.join(parts)}.'" if parts else "nothing" for parts in (self.ours, self.theirs))
        return f"{ours} for {theirs}"

    @property
    def distance(self) -> int:
        """How many words it adds and takes away; the order does not count."""
        ours, theirs = Counter(self.ours), Counter(self.theirs)
        return (ours - theirs).total() + (theirs - ours).total()

    @property
    def only_moves(self) -> bool:
        """Whether words are only added, only taken away, or put around a word that stays."""
        ours, theirs = self._changed
        return not ours or not theirs or bool(set(ours) & set(theirs))

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
    for the same templates; then the one that keeps more words.
    """
    found = Found()
    if not ours or not theirs or max(len(ours), len(theirs)) > MOST:
        return found
    left, free, rules = set(ours), set(theirs), _candidates(ours, theirs, whole)
    while True:
        moves = [(rule, _moved(rule, ours, theirs, left, free)) for rule in rules]
        moves = [(rule, moved) for rule, moved in moves if _is_enough(rule, moved, left, free)]
        if not moves:
            break
        most = max(len(moved) for _, moved in moves)
        best = [(rule, moved) for rule, moved in moves if len(moved) == most]
        rule, moved = min(best, key=lambda one: one[0].distance)
        rivals = [
            other
            for other, others in best
            if other is not rule and other.distance == rule.distance and _clash(moved, others)
        ]
        left -= moved.keys()
        if rivals:
            found.doubts.append([rule, *rivals])
            continue
        free -= set(moved.values())
        found.rules.append(rule)
        found.templates.update(moved)
    for template in sorted(left):  # what has another shape, say a larger vocabulary, still has the same name
        for rule in found.rules:
            if (there := rule.apply(template)) in free:
                found.templates[template] = there
                free.discard(there)
                break
    return found


def _candidates(ours: Iterable[Parts], theirs: Iterable[Parts], whole: bool) -> list[Rule]:
    by_end: dict[tuple[int, str], list[Parts]] = {}
    for there in theirs:
        by_end.setdefault((there.count("*"), there[-1]), []).append(there)
    rules: dict[Rule, None] = {}
    for here in ours:
        for there in by_end.get((here.count("*"), here[-1]), ()):
            same = common_end(here, there)
            rule = Rule(here[: len(here) - same], there[: len(there) - same])
            at_the_front = not rule.ours or not rule.theirs
            if (same > 1 or at_the_front) and (rule.only_moves or whole):
                rules[rule] = None
    return list(rules)


def _moved(
    rule: Rule, ours: Templates, theirs: Templates, left: Collection[Parts], free: Collection[Parts]
) -> dict[Parts, Parts]:
    """What the rule turns into what, where all known shapes agree."""
    moved = {}
    for here in left:
        there = rule.apply(here)
        if there in free and there is not None and _agree(ours, here, theirs, there):
            moved[here] = there
    return moved


def _agree(ours: Templates, here: Parts, theirs: Templates, there: Parts) -> bool:
    shared = ours[here].keys() & theirs[there].keys()
    pairs = [(ours[here][numbers], theirs[there][numbers]) for numbers in shared]
    return bool(pairs) and all(None in (a, b) or a == b for a, b in pairs)


def _is_enough(rule: Rule, moved: dict[Parts, Parts], left: Collection[Parts], free: Collection[Parts]) -> bool:
    if rule.only_moves:
        return len(moved) >= (FEWEST_WHEN_INSIDE if rule.inside else 1)
    beginning, beginning_there = len(rule.ours), len(rule.theirs)
    here = [template for template in left if template[:beginning] == rule.ours]
    there = [template for template in free if template[:beginning_there] == rule.theirs]
    modules = {template[-2] for template in moved if len(template) > 1}
    return len(moved) >= FEWEST_WHEN_OTHER and len(modules) > 1 and len(here) == len(there) == len(moved)


def _clash(one: dict[Parts, Parts], other: dict[Parts, Parts]) -> bool:
    """Whether two rules do different things with the same templates, or the same thing with different ones."""
    if any(here in other and other[here] != there for here, there in one.items()):
        return True
    back = {there: here for here, there in other.items()}
    return any(there in back and back[there] != here for here, there in one.items())
