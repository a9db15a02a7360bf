"""The options of this plugin, and the contradictions in them."""

from collections.abc import Iterator

from attrs import field, frozen, validators
from modelmerger import Check, Problem, as_yaml, must_be_between

METHODS = ("linear", "cat", "svd", "peft_linear")
_method = Check(
    {"enum": [*METHODS, None]},
    lambda value: None if value in METHODS else f"must be one of {', '.join(METHODS)}, got {as_yaml(value)}",
)


@frozen(kw_only=True)
class Options:
    """Options about merged adapters."""

    preserve_base_model: bool | None = None
    """For adapters with merge_adapters: true: the merged adapter is written; false: a full model."""
    merge_method: str | None = field(default=None, validator=validators.optional(_method))
    """For adapters with merge_adapters: true: how their factors are put together."""
    rank: int | None = field(default=None, validator=validators.optional(must_be_between(1, 2**20)))
    """For merge_method svd: the rank of the merged adapter; else the largest rank among the adapters."""

    @property
    def to_adapter(self) -> bool:
        """Whether a merge of adapters into one writes that one; else it is folded into the base."""
        return self.preserve_base_model is not False


def contradictions(options: Options, any_adapter: bool, merge_adapters: bool) -> Iterator[Problem]:
    """What the options ask that cannot be.

    `any_adapter`: whether any of the models is an adapter. `merge_adapters`: as `peft_config` says it.
    """
    for name in ("preserve_base_model", "merge_method", "rank"):
        if getattr(options, name) is not None and not any_adapter:
            yield Problem(
                "is of use to adapters alone, and none of the models is one. Leave it out.", f"options.{name}"
            )
    for name in ("merge_method", "rank"):
        if getattr(options, name) is not None and any_adapter and not merge_adapters:
            message = (
                "says how adapters are merged into an adapter, and merge_adapters: false folds each into its base. "
                "Leave it out."
            )
            yield Problem(message, f"options.{name}")
    if options.preserve_base_model and any_adapter and not merge_adapters:
        message = (
            "contradicts merge_adapters: false, which folds each adapter into its base, so that a full model comes "
            "out. Set peft_config.merge_adapters: true, or leave this out."
        )
        yield Problem(message, "options.preserve_base_model")
    if options.rank is not None and merge_adapters and options.merge_method != "svd":
        message = (
            f"belongs to merge_method: svd, and it is {options.merge_method or 'linear'}, which is exact. Leave it out."
        )
        if options.merge_method == "peft_linear":
            message = "belongs to merge_method: svd, and peft_linear keeps the rank of the adapters. Leave it out."
        yield Problem(message, "options.rank")
