"""The dialect that a model answers in: prompts in each variety of Arabic, and what the dialect scorer says of answers.

    dialect_match = |answers that the scorer puts into the variety of their prompt| / |answers|

over all prompts, and for each variety with what its answers were taken for: a row of the confusion matrix. An answer
without Arabic words is in none. The scorer is named with its own accuracy, for no figure made of its answers is better
than that. A prompt whose variety the config does not say counts as being in the one that the scorer finds for the
prompt itself.
"""

from collections import Counter
from collections.abc import Iterable, Sequence

from modelmerger import Finding, LabelScores, Subject, UnmeasurableError, ValidationSettings, amount, hookimpl

metrics = {"dialect_match": "higher"}
NONE = "no Arabic"


@hookimpl
def wants_validation(settings: ValidationSettings) -> bool:
    """Where the config has prompts."""
    return bool(settings.test_prompts)


@hookimpl
def validate_model(subject: Subject) -> Iterable[Finding]:
    """The share over all prompts, then that of each variety."""
    asked = [(variety, answer) for variety, group in subject.answers().items() for answer in group]
    if not asked:
        raise UnmeasurableError("there is no prompt. Give 'test_prompts'")
    scores = subject.score_labels([answer.text for _, answer in asked])
    of_prompts = subject.score_labels([answer.prompt for _, answer in asked]).best_labels()
    varieties = [given or found or NONE for (given, _), found in zip(asked, of_prompts, strict=True)]
    named = [name or NONE for name in scores.best_labels()]
    known = [(v, n) for v, n in zip(varieties, named, strict=True) if v in scores.labels]
    guessed = sum(not given for given, _ in asked)
    note = f"; the variety of {amount(guessed, 'prompt')} is the scorer's guess" if guessed else ""
    yield _finding(known, "", f"{amount(len(known), 'answer')}{note}; by {_named(scores)}")
    for variety in dict.fromkeys(varieties):
        if variety in scores.labels:
            part = [pair for pair in known if pair[0] == variety]
            yield _finding(part, variety, _confusion([answered for _, answered in part]))
        else:
            labels = ", ".join(scores.labels)
            reason = f"{scores.scorer} knows {labels}, and no {variety}"
            yield Finding(metric="dialect_match", value=None, evidence=reason, unit="share of answers", label=variety)


def _finding(pairs: Sequence[tuple[str, str]], variety: str, evidence: str) -> Finding:
    share = sum(asked == answered for asked, answered in pairs) / len(pairs) if pairs else None
    return Finding(metric="dialect_match", value=share, evidence=evidence, unit="share of answers", label=variety)


def _confusion(answered: Sequence[str]) -> str:
    """`answered in egyptian 3, msa 2`."""
    return "answered in " + ", ".join(f"{name} {count}" for name, count in Counter(answered).most_common())


def _named(scores: LabelScores) -> str:
    return f"{scores.scorer}: {scores.stated}"
