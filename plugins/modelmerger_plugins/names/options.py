"""The keys of models that this plugin reads, and what the config says with them."""

from attrs import field, frozen
from modelmerger import Settings


def _with_dot(prefix: str | None) -> str | None:
    return prefix if not prefix or prefix.endswith(".") else f"{prefix}."


@frozen(kw_only=True)
class ModelOptions:
    """Keys of models."""

    prefix: str | None = field(default=None, converter=_with_dot)
    """What the names of the tensors that are merged begin with, in this model or in the donor, where several parts
    could be meant: model.language_model."""


def given_prefix(settings: Settings, index: int) -> str | None:
    """What the config says of a checkpoint; the base model has no keys."""
    told = settings.plugin_model_options
    found: str | None = told[index]["names"].prefix if index < len(told) else None
    return found
