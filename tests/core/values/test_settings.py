"""Every option of the reference is checked: good values are taken, bad ones refused with their place."""

from importlib.metadata import entry_points
from typing import Any

import attrs
import pytest
from modelmerger import ConfigError, Settings
from modelmerger.testing import settings_of
from modelmerger.values.options.checks import size_in_bytes
from modelmerger.values.options.core import CoreOptions

MODELS = [{"path": "./a"}, {"path": "./b"}]

# option: the strategy that has it, good values, bad values with a part of what is said of them
TABLE: dict[str, tuple[str, list[Any], list[tuple[Any, str]]]] = {
    "io": ("weighted", ["auto", "buffered", "direct"], [("fast", "one of auto, buffered, direct"), (True, "one of auto, buffered, direct")]),
    "memory": ("weighted", ["512MiB", 0, "0", 1], [("much", "a size such as"), (-1, "a size such as")]),
    "boosted_from": ("boost", [0.1, 0.5, 1], [(2, "[0, 1]"), ("much", "a number")]),
    "extrapolation_factor": ("slerp", [1.5, -0.2, None], [("far", "a number")]),
    "same_depth": ("weighted", [True, False], [("no", "true or false")]),
    "growth": ("lines", [1, 2.5], [("much", "a number")]),
    "executor": ("weighted", ["threads", None], [("", "must not be empty"), (1, "a text"), ("dask", "no executor is named")]),
    "normalize_weights": ("weighted", [True, False], [("no", "true or false")]),
    "weight_decay": ("weighted", [0, 0.0, 0.999], [(1, "[0, 1)"), (-0.1, "[0, 1)"), (float("nan"), "[0, 1)"), ("0", "a number")]),
    "scaling_factor": ("task_arithmetic", [0.3, -1, 2], [(float("inf"), "finite"), (float("nan"), "finite"), (True, "number")]),
    "clamp_weights": ("task_arithmetic", [True, False], [(1, "true or false")]),
    "clamp_range": (
        "task_arithmetic",
        [[-2, 2], [0.0, 0.5]],
        [([2, -2], "smaller first"), ([1, 1], "smaller first"), ([1], "a list of 2"), (2, "a list"), ([0, float("nan")], "smaller first")],
    ),
    "interpolation_factor": ("slerp", [0, 0.5, 1.0, None], [(1.1, "[0, 1]"), (-0.1, "[0, 1]"), ("0.5", "a number")]),
    "normalize_before_slerp": ("slerp", [True, False], [(None, "true or false")]),
    "max_iter": ("karcher", [1, 50], [(0, ">= 1"), (1.5, "whole number")]),
    "tol": ("karcher", [0, 1e-5], [(-1e-9, "[0, 1]"), ("1e-8", "a number")]),
    "density": ("sce", [0, 0.3, 1], [(-0.1, "[0, 1]"), (1.1, "[0, 1]")]),
    "r": ("ramplus_tl", [0, 0.1, 2], [(-1, "not be negative")]),
    "alpha": ("ramplus_tl", [0, 0.2], [(-1, "not be negative")]),
    "t": ("nearswap", [0, 1e-4], [(-1, "not be negative"), (None, "number")]),
    "scale": ("passthrough", [0, -1, 2], [(float("inf"), "finite")]),
    "epsilon": ("slerp", [1e-8, 0, 1], [(-1e-9, "[0, 1]"), ("1e-8", "a number")]),
    "preserve_tokenizer": ("weighted", [True, False], [("yes", "true or false")]),
    "merge_embeddings": ("weighted", [True, False], [("no", "true or false"), (None, "true or false")]),
    "merge_lm_head": ("weighted", [True, False, None], [(0, "true or false")]),
    "torch_dtype": ("weighted", ["auto", "float64", "float32", "float16", "bfloat16"], [("float8", "one of auto, float64"), (16, "text")]),
    "device_map": ("weighted", ["auto", "cpu", "cuda", "cuda:1", "balanced", {"": "disk"}, {"a": 0, "b": "cpu"}], [("gpu", "one of auto, cpu, cuda, cuda:N"), (0, "a text or a mapping"), ({"": "gpu"}, "one of cpu, disk, cuda"), ({}, "one of cpu, disk"), ({"": None}, "must be")]),
    "low_memory_mode": ("weighted", [True, False], [("true", "true or false")]),
    "parallel_loading": ("weighted", [True, False, None], [(1, "true or false")]),
    "sequential_loading": ("weighted", [True, False], [(0, "true or false")]),
    "cache_models": ("weighted", [False, True], [("yes", "must be true or false")]),
    "use_safetensors": ("weighted", [True, False], [("no", "true or false")]),
    "max_shard_size": ("weighted", ["5GB", "1 GiB", "500mb", 4096], [("5 potatoes", "'5GB'"), (0, "'5GB'"), ("-1GB", "'5GB'"), (1.5, "whole number or a text")]),
    "offload_folder": ("weighted", [None, "./scratch"], [("", "must not be empty"), (1, "a text")]),
    "torch_compile": ("weighted", [True, False], [("yes", "true or false")]),
    "gradient_checkpointing": ("weighted", [True, False], [("no", "true or false")]),
    "verbose": ("weighted", [True, False], [("no", "true or false")]),
    "log_level": ("weighted", ["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL", None], [("debug", "one of DEBUG"), (10, "text")]),
    "seed": ("weighted", [0, 2**63 - 1], [(-1, "in [0"), (2**63, "in [0"), (1.0, "whole number")]),
    "allow_nonfinite": ("weighted", [True, False], [("no", "true or false")]),
    "allow_pickle": ("weighted", [True, False], [("no", "true or false")]),
    "gamma": ("breadcrumbs", [0, 0.01], [(1.1, "[0, 1]"), ("0.1", "a number")]),
    "mask_factor": ("consensus", [0, 0.4], [(-1, "[0, 10]"), ("0.4", "a number")]),
    "agreeing_models": ("consensus", [1, 2], [(0, "at least 1"), (1.5, "whole number")]),
    "rescale": ("dare_linear", [True, False, "l1"], [("l2", "l1")]),
    "untie": ("weighted", [True, False], [("yes", "true or false")]),
    "check_loading": ("weighted", ["auto", True, False], [("no", "auto"), (1, "auto")]),
    "chat_template_from": ("weighted", [None], [("", "must not be empty"), (1, "a text")]),
    "generation_config_from": ("weighted", [None], [("", "must not be empty"), (1, "a text")]),
    "missing_tensors": ("weighted", ["error", "donor", "union"], [("base", "one of error, donor, union"), (None, "one of error")]),
    "unmatched_patterns": ("weighted", ["error", "warning"], [("note", "one of error, warning"), (None, "one of error")]),
    "chat_template": ("weighted", [None, "{{ messages }}"], [("", "must not be empty"), (1, "a text")]),
    "prefix": ("stack", [None, "model.layers"], [(1, "a text")]),
    "overwrite": ("weighted", [True, False], [(1, "true or false")]),
    "keep_extra": ("weighted", [True, False], [("yes", "true or false")]),
    "record_paths": ("weighted", [True, False], [(None, "true or false")]),
    "preserve_base_model": ("weighted", [True, False, None], [("no", "true or false")]),
    "merge_method": ("weighted", ["linear", "cat", "svd", "peft_linear", None], [("best", "must be one of linear")]),
    "rank": ("weighted", [1, 8, None], [(0, "in [1")]),
    "geometry": ("weighted", [True, False, None], [("yes", "true or false")]),
    "tokenizer_source": ("weighted", ["base", "first", "union", "a"], [("", "must not be empty"), (1, "a text")]),
    "missing_tokens": ("weighted", ["owners", "base", "mean_subtokens", "zero"], [("zeros", "one of owners, base")]),
    "pad_to_multiple_of": ("weighted", [1, 64, None], [(0, "in [1"), (8.5, "whole number")]),
    "token_sources": ("weighted", [None, {}, {"<s>": {"model": "a"}}, {"x": {"zero": True, "force": True}}], [({"x": {}}, "zero: true"), ([], "a mapping"), ({"x": 1}, "a mapping")]),
}  # fmt: skip


def options_of(group: str) -> dict[str, list[str]]:
    """The options that the built-in plugins of an entry point group declare, each with the plugins that do."""
    found: dict[str, list[str]] = {}
    for point in sorted(entry_points(group=group), key=lambda point: point.name):
        if point.dist and point.dist.name == "modelmerger" and hasattr(point.load(), "Options"):
            for field in attrs.fields(point.load().Options):
                found.setdefault(field.name, []).append(point.name)
    return found


OF_PLUGINS = options_of("modelmerger.plugins").keys()
OF_STRATEGIES = options_of("modelmerger.strategies")


def settings(strategy: str, **options: Any) -> Settings:
    models = MODELS[:1] if strategy in ("nearswap", "passthrough") else MODELS
    base = {} if strategy in ("weighted", "sequential", "slerp") else {"base_model": "./base"}
    return settings_of({"strategy": strategy, "models": models, "options": options, **base})


def value_of(found: Settings, option: str) -> Any:
    owners = [found.options, found.strategy_options, *found.plugin_options.values()]
    return next(getattr(owner, option) for owner in owners if hasattr(owner, option))


@pytest.mark.parametrize(
    ("option", "strategy", "good"), [(o, s, g) for o, (s, goods, _) in TABLE.items() for g in goods]
)
def test_good_values_are_taken_as_they_are(option: str, strategy: str, good: Any) -> None:
    assert value_of(settings(strategy, **{option: good}), option) == (tuple(good) if isinstance(good, list) else good)


@pytest.mark.parametrize(
    ("option", "strategy", "bad", "reason"), [(o, s, b, r) for o, (s, _, bads) in TABLE.items() for b, r in bads]
)
def test_bad_values_are_refused_with_their_place(option: str, strategy: str, bad: Any, reason: str) -> None:
    with pytest.raises(ConfigError) as caught:
        settings(strategy, **{option: bad})
    (line,) = caught.value.lines()
    assert line.startswith(f"options.{option}")
    assert reason in line


def test_the_table_holds_every_option_there_is() -> None:
    of_core = {field.name for field in attrs.fields(CoreOptions)}
    assert TABLE.keys() == of_core | OF_PLUGINS | OF_STRATEGIES.keys()


@pytest.mark.parametrize("strategy", ["weighted", "task_arithmetic"])
@pytest.mark.parametrize(
    ("option", "owners"), [(o, s) for o, s in OF_STRATEGIES.items() if o != "t"]
)  # mergekit's word
def test_an_option_of_another_strategy_is_refused_by_its_owners(option: str, owners: list[str], strategy: str) -> None:
    good = TABLE[option][1][0]
    if strategy in owners:
        settings(strategy, **{option: good})
        return
    with pytest.raises(ConfigError) as caught:
        settings(strategy, **{option: good})
    assert caught.value.lines() == [
        f"options: '{option}' belongs to {', '.join(owners)}, and the strategy is {strategy}. Leave it out"
    ]


def test_the_defaults_are_those_of_the_reference() -> None:
    found = settings("weighted")
    expected = {"torch_dtype": "auto", "max_shard_size": "5GB", "low_memory_mode": False, "seed": 0, "overwrite": False}
    assert {key: getattr(found.options, key) for key in expected} == expected
    assert attrs.asdict(found.strategy_options) == {"normalize_weights": True, "weight_decay": 0.0}
    assert attrs.asdict(settings("task_arithmetic").strategy_options) == {
        "scaling_factor": 1.0,
        "clamp_weights": False,
        "clamp_range": (-2.0, 2.0),
    }
    assert attrs.asdict(settings("slerp").strategy_options) == {
        "interpolation_factor": None,
        "extrapolation_factor": None,
        "normalize_before_slerp": True,
        "epsilon": 1e-8,
    }
    assert settings("sequential").strategy_options is None
    assert found.plugin_options["tokenizer"].preserve_tokenizer is True


@pytest.mark.parametrize(
    ("options", "level"),
    [
        ({}, "WARNING"),
        ({"verbose": True}, "INFO"),
        ({"verbose": True, "log_level": "ERROR"}, "ERROR"),
        ({"verbose": False, "log_level": "DEBUG"}, "DEBUG"),
    ],
)
def test_log_level_wins_over_verbose(options: dict[str, Any], level: str) -> None:
    assert settings("weighted", **options).options.level == level


@pytest.mark.parametrize(
    ("options", "ahead"),
    [
        ({}, True),
        ({"sequential_loading": True}, False),
        ({"parallel_loading": False}, False),
        ({"parallel_loading": True}, True),
        ({"sequential_loading": True, "parallel_loading": False}, False),
    ],
)
def test_sequential_loading_turns_parallel_loading_off(options: dict[str, Any], ahead: bool) -> None:
    assert settings("weighted", **options).options.reads_ahead is ahead


def test_both_ways_of_loading_are_a_contradiction() -> None:
    with pytest.raises(ConfigError, match="contradicts 'sequential_loading'") as caught:
        settings("weighted", sequential_loading=True, parallel_loading=True)
    assert caught.value.problems[0].where == "options.parallel_loading"


@pytest.mark.parametrize(
    ("size", "count"),
    [("5GB", 5 * 10**9), ("1GiB", 1 << 30), ("500MB", 5 * 10**8), ("1.5 kib", 1536), ("10B", 10), ("7", 7), (123, 123), ("2TB", 2 * 10**12)],
)  # fmt: skip
def test_sizes_are_read_as_transformers_reads_them(size: int | str, count: int) -> None:
    assert size_in_bytes(size) == count


@pytest.mark.parametrize("size", ["", "GB", "5XB", "-5GB", "0", 0, "0.5B", "1e9", "1" * 20 + "GB", "5 GB 3"])
def test_other_sizes_are_refused(size: int | str) -> None:
    with pytest.raises(ValueError, match="must be a size such as '5GB'"):
        size_in_bytes(size)
