"""Checks of validators: what they find is declared, said to be measured on something, and the same each time."""

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Self

import attrs
import torch
from attrs import field, frozen

from modelmerger.config.resolve import resolve
from modelmerger.hooks.assembly import Hooks, assemble
from modelmerger.hooks.plugins import Plugin
from modelmerger.testing.checks.average import Average
from modelmerger.testing.checks.check import Check, assert_refused, is_same, works
from modelmerger.testing.checks.given import handed_options, plugin_under_test
from modelmerger.testing.checks.random_state import global_states, random_state_kept, seed_globally
from modelmerger.testing.checks.stand_in import NO_TEXTS, stand_in
from modelmerger.testing.checks.strategy_config import WRONG
from modelmerger.values.errors import ConfigError, UnmeasurableError
from modelmerger.values.findings import Finding
from modelmerger.values.settings import ValidationSettings
from modelmerger.values.subject import Subject


@frozen(eq=False)
class ValidatorUnderTest:
    """What the checks of validators take."""

    plugin: Any
    """As it was given: a name, a module or an object."""
    declared: Plugin
    """What its module declares."""
    hooks: Hooks
    """Its hooks alone."""
    subject: Callable[[], Subject]
    """Makes what it measures."""
    settings: ValidationSettings = field(factory=ValidationSettings)
    """The argument `settings` of the hook."""

    @classmethod
    def of(
        cls,
        plugin: Any,
        *,
        subject: Callable[[], Subject] = stand_in,
        options: Mapping[str, Any] | None = None,
        settings: ValidationSettings | None = None,
    ) -> Self:
        """The validator under test. subject: makes what it measures, for one to which a stand-in is not enough."""
        declared = plugin_under_test(plugin, "validator", "validate_model")
        with works(f"loading {declared.provider}"):
            hooks = assemble([declared], handed_options(declared, options))
        return cls(plugin, declared, hooks, subject, settings or ValidationSettings())

    @property
    def name(self) -> str:
        """As in the config."""
        return self.declared.provider.name

    def find(self, subject: Subject) -> list[Finding] | str:
        """What it finds; or why it measures nothing. Raises `AssertionError`."""
        try:
            with works(f"{self.name}: validate_model"):
                return list(self.hooks.validation.validate_model(self.name, subject, self.settings))
        except AssertionError as error:
            if isinstance(error.__cause__, UnmeasurableError):
                return str(error.__cause__)
            raise


def check_findings(validator: ValidatorUnderTest) -> None:
    """Findings are of the metrics that it declares, are finite or None, and say what they were measured on."""
    found = validator.find(validator.subject())
    if isinstance(found, str):
        raise AssertionError(f"{validator.name}: nothing was measured ({found}). Give a `subject` that it can measure.")  # noqa: TRY004 (a check)
    if not found:
        raise AssertionError(f"{validator.name}: nothing was found. Yield a Finding, or raise UnmeasurableError.")
    for finding in found:
        if finding.value is not None and math.isnan(finding.value):
            raise AssertionError(f"{validator.name}: {finding.metric} is a NaN. Give None, and the reason as evidence.")
        if not finding.evidence.strip():
            raise AssertionError(
                f"{validator.name}: {finding.metric} has no evidence. Say on what it was measured, and how."
            )
    twice = [(finding.metric, finding.label) for finding in found]
    if len(set(twice)) < len(twice):
        raise AssertionError(f"{validator.name}: a metric is found twice for one label. Give each finding its label.")


def check_same_findings_twice(validator: ValidatorUnderTest) -> None:
    """The same model is found the same, under any global random state, which stays as it is."""
    found = []
    with random_state_kept():
        for seed in (1, 2):
            seed_globally(seed)
            subject = validator.subject()
            before = global_states()
            found.append(validator.find(subject))
            if global_states() != before:
                raise AssertionError(
                    f"{validator.name}: it draws numbers from a global generator. Seed one of your own by "
                    "`settings.seed`."
                )
    if found[0] != found[1]:
        raise AssertionError(f"{validator.name}: the same model is found another way the second time. Keep no state.")


def check_model_is_kept(validator: ValidatorUnderTest) -> None:
    """The model stays as it is: its numbers, its mode, its gradients. The next validator measures it too."""
    subject = validator.subject()
    model = subject.model
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    mode = model.training, [parameter.requires_grad for parameter in model.parameters()]
    validator.find(subject)
    after = model.state_dict()
    if changed := [name for name in before if not is_same(after[name], before[name])]:
        raise AssertionError(f"{validator.name}: {changed[0]} of the model is changed. Work on a copy.")
    if mode != (model.training, [parameter.requires_grad for parameter in model.parameters()]):
        raise AssertionError(f"{validator.name}: the model is left in another mode. Put back what was changed.")
    if any(parameter.grad is not None for parameter in model.parameters()):
        raise AssertionError(f"{validator.name}: the model is left with gradients. Use torch.inference_mode().")


def check_unmeasurable_models(validator: ValidatorUnderTest) -> None:
    """What cannot be measured is an UnmeasurableError or a Finding of None: no texts, no prompts, no tokenizer, another
    kind of model.
    """
    for what, how in (
        ("without texts and prompts", {"texts": NO_TEXTS, "prompts": NO_TEXTS}),
        ("with empty texts and prompts", {"texts": {"": ("",)}, "prompts": {"": ("",)}}),
        ("without a tokenizer", {"has_tokenizer": False}),
        ("that predicts no tokens", {"predicts": False}),
    ):
        try:
            validator.find(stand_in(**how))
        except AssertionError as error:
            sentence = "Raise UnmeasurableError with the reason, or yield a Finding whose value is None."
            raise AssertionError(f"{validator.name}: a model {what} is no fault. {sentence} {error}") from error


def check_validation_options(validator: ValidatorUnderTest) -> None:
    """A wrong value of an option is refused with its place in the config, `validation.long_from`."""
    options: Any = validator.declared.options
    for name in [declared.name for declared in attrs.fields(options)]:
        validation = {"metrics": [validator.plugin], name: WRONG}
        config = {"strategy": Average(), "models": [{"path": "./a"}], "validation": validation}
        sentence = f"{validator.name}: validation.{name} must refuse {WRONG!r}. Give the field of Options a type."
        assert_refused(partial(resolve, config), ConfigError, (f"validation.{name}",), sentence)


def _has_options(validator: ValidatorUnderTest) -> bool:
    return validator.declared.options is not None and bool(attrs.fields(validator.declared.options))


def _has_a_module(validator: ValidatorUnderTest) -> bool:
    try:
        return isinstance(validator.subject().model, torch.nn.Module)
    except UnmeasurableError:
        return False


VALIDATOR_CHECKS = (
    Check(check_validation_options, _has_options),
    Check(check_findings),
    Check(check_same_findings_twice),
    Check(check_model_is_kept, _has_a_module),
    Check(check_unmeasurable_models),
)
"""In the order in which they run."""
