"""What was answered, as the page shows it: the answers by prompt, and under which labels they fall."""

from collections import Counter
from collections.abc import Sequence

from attrs import frozen
from modelmerger import Sample, ValidationReport

from modelmerger_plugins.report_page.measured import models_of

NONE = "no label"
ROOM = 180_000
"""Bytes of the page that prompts and answers may take together."""
MARKUP = 250
"""Bytes around a text on the page, about."""


@frozen
class Confusion:
    """The labels of a model's answers, by the labels of their prompts."""

    model: str
    """The name of the model."""
    answered: Sequence[str]
    """The labels of answers, one for each column: those of prompts first."""
    rows: Sequence[tuple[str, Sequence[tuple[int, int, bool]]]]
    """For each label of prompts and each column: the count, its share of the row (0 to 4), and whether they agree."""
    right: int
    """How many answers have the label of their prompt."""
    total: int
    """How many answers there are."""


@frozen
class Asked:
    """A prompt and the answers to it."""

    prompt: str
    """As the model was asked."""
    label: str
    """Of the prompt; empty where it is not known."""
    answers: Sequence[Sample]
    """The merged model's first."""


def confusions(report: ValidationReport) -> list[Confusion]:
    """One for each model, the merged model's first; none where no prompt has a label, or no answer was given one."""
    found = []
    for model in models_of(report):
        samples = [sample for sample in report.samples if sample.model == model and sample.label]
        counts = Counter((sample.label, sample.answered_label or NONE) for sample in samples)
        if not any(sample.answered_label for sample in samples):
            continue
        asked = list(dict.fromkeys(sample.label for sample in samples))
        others = sorted({answered for _, answered in counts} - {*asked, NONE})
        columns = [*asked, *others, *([NONE] if any(answered == NONE for _, answered in counts) else [])]
        rows = []
        for one in asked:
            total = sum(counts[one, column] for column in columns)
            shades = [-(-4 * counts[one, column] // total) for column in columns]
            marks = [column == one for column in columns]
            rows.append((one, list(zip((counts[one, c] for c in columns), shades, marks, strict=True))))
        right = sum(counts[one, one] for one in asked)
        found.append(Confusion(model, columns, rows, right, len(samples)))
    return found


@frozen
class Group:
    """The prompts of a label."""

    shown: Sequence[Asked]
    """Those that the page has room for, in their order; one at least."""
    left_out: int
    """How many others there are."""


def by_label(report: ValidationReport) -> list[tuple[str, Group]]:
    """The prompts of each label, the labels in the order of their first prompts. Each label has an equal share of the
    room that there is.
    """
    groups: dict[str, list[Asked]] = {}
    for one in asked(report):
        groups.setdefault(one.label, []).append(one)
    return [(label, _fitting(group, ROOM // len(groups))) for label, group in groups.items()]


def _fitting(group: Sequence[Asked], room: int) -> Group:
    kept = 0
    for one in group:
        room -= sum(
            len(text.encode(errors="surrogatepass")) + MARKUP
            for text in (one.prompt, *(sample.answer for sample in one.answers))
        )
        if room < 0 and kept:
            break
        kept += 1
    return Group(group[:kept], len(group) - kept)


def asked(report: ValidationReport) -> list[Asked]:
    """The prompts in order, each with its answers."""
    groups: dict[tuple[str, str], list[Sample]] = {}
    for sample in report.samples:
        groups.setdefault((sample.prompt, sample.label), []).append(sample)
    order = {model: place for place, model in enumerate(models_of(report))}
    return [Asked(*key, sorted(group, key=lambda s: order[s.model])) for key, group in groups.items()]
