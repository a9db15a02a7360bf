"""How many of a model's answers it has given before: a model that was merged too hard says the same to everyone."""

from collections.abc import Iterable

from attrs import field, frozen
from modelmerger import Finding, Subject, UnmeasurableError, amount, hookimpl, must_be_between

metrics = {"repeated_answers": "lower"}


@frozen(kw_only=True)
class Options:
    """Options of the validator."""

    compared_words: int = field(default=20, validator=must_be_between(1, 10_000))
    """How many words of an answer, from its beginning, are compared."""


@hookimpl
def validate_model(subject: Subject, options: Options) -> Iterable[Finding]:
    """The share of answers whose words were those of an earlier one."""
    answers = [answer.text.split() for group in subject.answers().values() for answer in group]
    if not answers:
        raise UnmeasurableError("there is no prompt. Give 'test_prompts'")
    different = {tuple(words[: options.compared_words]) for words in answers}
    yield Finding(
        metric="repeated_answers",
        value=1 - len(different) / len(answers),
        evidence=f"{amount(len(answers), 'answer')}, by their first {amount(options.compared_words, 'word')}",
        unit="share of answers",
    )
