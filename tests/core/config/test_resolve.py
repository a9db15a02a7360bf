"""What a config means: names of models, owners of options, limits of strategies, and problems said all at once."""

import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import attrs
import pytest
from modelmerger import ConfigError, MergeConfig, ModelMerger, PluginError, Settings, base_name, merge
from modelmerger.config.resolve import resolve, resolve_validation

from tests.core.plugging import WEIGHTS_SQUARED, install


def settings(strategy: str = "weighted", **given: Any) -> Settings:
    return resolve({"strategy": strategy, **given})[0]


def problems(strategy: Any = "weighted", **given: Any) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        resolve({"strategy": strategy, **given})
    return [str(problem) for problem in caught.value.problems]


def names(*paths: str, **given: str) -> list[str]:
    models: list[dict[str, Any]] = [{"path": path} for path in paths]
    for index, name in given.items():
        models[int(index.removeprefix("m"))]["name"] = name
    return [model.name for model in settings(models=models).models]


def test_a_model_is_named_by_the_last_part_of_its_path() -> None:
    assert names("./models/chat", "/data/formal/", "~/poetry", "weights/x.safetensors") == [
        "chat",
        "formal",
        "poetry",
        "x.safetensors",
    ]


def test_equal_last_parts_get_as_many_parents_as_it_takes() -> None:
    assert names("/m/chat/v1", "/m/formal/v1") == ["chat/v1", "formal/v1"]
    assert names("/x/a/v1/final", "/x/b/v1/final", "/x/c") == ["a/v1/final", "b/v1/final", "c"]
    assert names("/x/v1", "/x/y/v1") == ["x/v1", "y/v1"]


def test_the_same_path_twice_is_numbered() -> None:
    assert names("/m/chat", "/m/chat", "/m/./chat/") == ["chat", "chat#2", "chat#3"]


def test_a_default_name_keeps_clear_of_given_ones() -> None:
    assert names("/m/chat", "/m/other", m1="chat") == ["m/chat", "chat"]
    assert names("/m/v1", "/n/v1", m0="first") == ["first", "v1"]


def test_the_current_directory_has_the_name_of_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "chat/v1").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "chat/v1")
    assert names(".", "..") == ["v1", "chat"]


def test_default_names_are_unique_whatever_the_paths() -> None:
    paths = ["/a/x", "/b/x", "/a/x", "/c/a/x", "x", "./x", "/x", "a/x", "../x", "/", "."]
    found = names(*paths)
    assert len(set(found)) == len(paths), found
    assert all(found)


def test_equal_given_names_are_an_error() -> None:
    models = [{"path": "a", "name": "same"}, {"path": "b", "name": "same"}, {"path": "c", "name": "other"}]
    assert problems(models=models) == ["models: two models are named 'same'. Give each a name of its own"]


def test_the_base_model_is_told_apart_from_a_model_of_its_name() -> None:
    given = {"models": [{"path": "/tuned/qwen"}], "base_model": "/original/qwen"}
    assert base_name(settings("task_arithmetic", **given)) == "qwen (base)"
    assert base_name(settings("task_arithmetic", **given | {"base_model": "/original/llama"})) == "llama"


@pytest.mark.parametrize(
    ("strategy", "count", "problem"),
    [
        ("slerp", 3, "models: slerp merges exactly two models, 3 given"),
        ("slerp", 1, "models: slerp merges exactly two models, 1 given"),
    ],
)
def test_a_strategy_says_how_many_models_it_merges(strategy: str, count: int, problem: str) -> None:
    assert problems(strategy, models=[{"path": f"m{n}"} for n in range(count)]) == [problem]


@pytest.mark.parametrize(
    ("limits", "count", "said"),
    [
        ("(3, None)", 2, "merges at least three models, 2 given"),
        ("(1, 4)", 5, "merges at most four models, 5 given"),
        ("(2, 4)", 1, "merges at least two models, 1 given"),
        ("(1, 1)", 2, "merges exactly one model, 2 given"),
        ("(12, 12)", 2, "merges exactly 12 models, 2 given"),
    ],
)
def test_limits_of_any_strategy_are_spelled_out(
    distribution: Callable[..., Path], limits: str, count: int, said: str
) -> None:
    install(distribution, [("strategy", "limited", WEIGHTS_SQUARED.replace("(1, None)", limits))])
    assert problems("limited", models=[{"path": f"m{n}"} for n in range(count)]) == [f"models: limited {said}"]


def test_what_the_limits_allow_is_allowed(distribution: Callable[..., Path]) -> None:
    install(distribution, [("strategy", "limited", WEIGHTS_SQUARED.replace("(1, None)", "(2, 3)"))])
    for count in (2, 3):
        assert len(settings("limited", models=[{"path": f"m{n}"} for n in range(count)]).models) == count


def test_task_arithmetic_needs_base_model() -> None:
    (problem,) = problems("task_arithmetic", models=[{"path": "a"}])
    assert problem.startswith("config: task_arithmetic needs base_model.")


@pytest.mark.parametrize("strategy", ["weighted", "sequential", "slerp"])
def test_subtract_belongs_to_task_arithmetic(strategy: str) -> None:
    models = [{"path": "a"}, {"path": "b", "operation": "subtract"}]
    assert problems(strategy, models=models) == [
        f"models[1]: 'operation' belongs to task_arithmetic, and the strategy is {strategy}. Leave it out"
    ]
    found = settings("task_arithmetic", models=models, base_model="c")
    assert [told.operation for told in found.model_options] == ["add", "subtract"]


def test_weights_that_add_up_to_zero_cannot_be_normalised() -> None:
    models = [{"path": "a", "weight": 0.5}, {"path": "b", "weight": -0.5}]
    (problem,) = problems(models=models)
    assert "[0.5, -0.5]" in problem
    assert "add up to 0" in problem
    assert problem.startswith("models: ")
    assert settings(models=models, options={"normalize_weights": False})
    nearly = [{"path": "a", "weight": 0.5}, {"path": "b", "weight": -0.5 + 9e-10}]
    assert problems(models=nearly)
    assert settings(models=[{"path": "a", "weight": 0.5}, {"path": "b", "weight": -0.5 + 2e-9}])


def test_sequential_begins_with_weight_one_or_none() -> None:
    (problem,) = problems("sequential", models=[{"path": "a", "weight": 0.6}, {"path": "b", "weight": 0.4}])
    assert "must be 1 or absent, got 0.6" in problem
    assert settings("sequential", models=[{"path": "a"}, {"path": "b", "weight": 0.4}])
    assert settings("sequential", models=[{"path": "a", "weight": 1}, {"path": "b", "weight": 0.4}])


@pytest.mark.parametrize("weights", [(0, 0), (-1, 1), (-1, 3), (2, -1)])
def test_slerp_weights_give_a_point_between_the_models(weights: tuple[float, float]) -> None:
    models = [{"path": "a", "weight": weights[0]}, {"path": "b", "weight": weights[1]}]
    (problem,) = problems("slerp", models=models)
    assert "give no point between the models" in problem
    assert settings("slerp", models=models, options={"interpolation_factor": 0.5})


def test_problems_of_models_options_and_strategy_are_said_together() -> None:
    found = problems(
        "task_arithmetic",
        models=[{"path": "a", "operation": "substract"}, {"pth": "b"}, "./c"],
        output_path="",
        options={"normalize_before_slerp": True, "clamp_range": 3, "seed": -1},
    )
    assert sorted(found) == [
        "config: task_arithmetic needs base_model. Give the path of the model that the others were tuned from; adapters know theirs, given a peft_config",
        "models[0].operation: must be one of add, subtract, got 'substract'",
        "models[1]: the key 'path' is missing",
        "models[1]: unknown key 'pth', did you mean 'path'?",
        "models[2]: must be a mapping with a 'path', got './c'. Write it as path: ./c",
        "options.clamp_range: must be a list, got 3",
        "options.seed: must be in [0, 9.22337e+18), got -1",
        "options: 'normalize_before_slerp' belongs to slerp, and the strategy is task_arithmetic. Leave it out",
        "output_path: must not be empty. Give a path, or leave it out",
    ]


def test_an_unknown_strategy_does_not_hide_other_problems() -> None:
    found = problems(
        "slrp",
        models=[{"path": "a"}, {"path": "b", "weight": "1"}, {"path": "c"}],
        options={"verbose": 1, "epsilon": 9},
    )
    assert found == [
        "models[1].weight: must be a number or a list or a mapping, got '1'. Write it without quotes",
        "no strategy is named 'slrp'; did you mean 'slerp'?",
        "options.verbose: must be true or false, got 1",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("models", "problem"),
    [
        (None, "config: the key 'models' is missing. Give a list of models, each with a 'path'"),
        ([], "models: must hold at least one model"),
        ("./a", "models: must be a list of models, each with a 'path', got './a'"),
        ({"a": "./a"}, "models: must be a list of models, each with a 'path', got {'a': './a'}"),
        ([None], "models[0]: must be a mapping with a 'path', got nothing"),
        ([{}], "models[0]: the key 'path' is missing"),
        ([{"path": ""}], "models[0].path: must not be empty"),
        ([{"path": Path("a")}], f"models[0].path: must be a text, got {Path('a')!r}"),
        ([{"path": "a", "weight": float("nan")}], "models[0].weight: must be a finite number, got nan"),
        ([{"path": "a", "weight": None}], "models[0].weight: must be a number or a list or a mapping, got nothing"),
    ],
)
def test_models_that_are_none_are_refused(models: Any, problem: str) -> None:
    assert problems(models=models) == [problem]


def test_peft_config_without_adapters_is_allowed_and_noted(models: SimpleNamespace, config: dict[str, Any]) -> None:
    peft = {"merge_adapters": True, "adapter_names": ["default"], "base_model_path": str(models.folder / "nowhere")}
    report = merge(MergeConfig(**{**config, "peft_config": peft}))
    notes = [note for note in report.notes if note.where == "peft_config"]
    assert [str(note) for note in notes] == [
        "peft_config: none of the models is an adapter, so peft_config has no effect."
    ]
    assert notes[0].severity == "note"
    assert not [
        note for note in ModelMerger(MergeConfig(**config)).check_compatibility() if note.where == "peft_config"
    ]


def test_validation_is_on_where_it_is_given() -> None:
    assert settings(models=[{"path": "a"}], validation={}).validation is None
    for given, on in (({"quick_test": True}, True), ({"quick_test": True, "run_tests": False}, False)):
        found = settings(models=[{"path": "a"}], validation=given).validation
        assert found is not None
        assert found.run_tests is on


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        (
            {"metrics": ["perplexty", "bleu"]},
            [
                "validation.metrics: no validator is named 'perplexty'; did you mean 'perplexity'?",
                "validation.metrics: no validator is named 'bleu' (installed: coherence, dialect_prompts, fluency, lm_eval, perplexity)",
            ],
        ),
        (
            {"run_tests": False, "thresholds": {"perplexty": 20}},
            [
                (
                    "validation.thresholds: no metric is named 'perplexty', did you mean 'perplexity'? "
                    "(perplexity finds perplexity, bits_per_byte)"
                )
            ],
        ),
        (
            {"metrics": ["coherence", "perplexity"], "thresholds": {"fluency": 20, "repetition": 0.5}},
            [
                (
                    "validation.thresholds: no metric is named 'fluency' "
                    "(coherence, perplexity find coherence, repetition, perplexity, bits_per_byte)"
                )
            ],
        ),
        ({"metrics": []}, ["validation.metrics: must hold at least one name"]),
        ({"thresholds": {"perplexity": float("nan")}}, ["validation.thresholds: must be a finite number, got nan"]),
    ],
)
def test_wrong_names_of_validators_and_metrics_are_problems_of_the_config(
    given: dict[str, Any], reason: list[str]
) -> None:
    assert problems(models=[{"path": "a"}], validation=given) == reason


@pytest.mark.parametrize(
    ("given", "names"),
    [
        ({}, ("perplexity",)),
        ({"test_prompts": ("مرحبا",)}, ("perplexity", "dialect_prompts")),
        ({"test_prompts": ("مرحبا",), "metrics": ("fluency", "fluency")}, ("fluency",)),
    ],
)
def test_validators_by_default(given: dict[str, Any], names: tuple[str, ...]) -> None:
    _, hooks = resolve({"strategy": "weighted", "models": [{"path": "a"}], "validation": {"run_tests": True} | given})
    assert tuple(hooks.validation.validators) == names


def test_settings_do_not_change_with_the_config_they_came_from() -> None:
    given: dict[str, Any] = {"strategy": "weighted", "models": [{"path": "a"}], "options": {"seed": 1}}
    found, _ = resolve(given)
    given["options"]["seed"] = 2
    given["models"].append({"path": "b"})
    assert found.given == {"strategy": "weighted", "models": [{"path": "a"}], "options": {"seed": 1}}
    assert found.options.seed == 1
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        found.options.seed = 3  # type: ignore[misc]  # a stand-in, or wrong on purpose


OPTIONS = """
from attrs import field, frozen, validators
from modelmerger import Traits, hookimpl

@frozen(kw_only=True)
class Options:
    {body}
"""
STRATEGY = (
    OPTIONS
    + """
traits = Traits(models=(1, None))

@hookimpl
def find_coefficients(weights, options):
    return [weight * options.power for weight in weights]
"""
)
PLUGIN = OPTIONS + """"""


def test_a_strategy_of_others_brings_its_own_options(distribution: Callable[..., Path]) -> None:
    body = "power: float = field(default=2.0, validator=validators.gt(0))"
    install(distribution, [("strategy", "powered", STRATEGY.format(body=body))])
    models = [{"path": "a"}]
    assert settings("powered", models=models, options={"power": 3}).strategy_options.power == 3.0
    assert problems("powered", models=models, options={"power": -1}) == ["options.power: 'power' must be > 0: -1.0"]
    assert problems("powered", models=models, options={"powr": 1}) == [
        "options: unknown key 'powr', did you mean 'power'?"
    ]
    assert problems("weighted", models=models, options={"power": 1}) == [
        "options: 'power' belongs to powered from acme-merge 1.0, and the strategy is weighted. Leave it out"
    ]


def test_options_of_an_always_on_plugin_join_those_of_every_merge(distribution: Callable[..., Path]) -> None:
    install(distribution, [("plugin", "carded", PLUGIN.format(body="card: bool = False"))])
    found = settings(models=[{"path": "a"}], options={"card": True})
    assert found.plugin_options["carded"].card is True
    assert problems(models=[{"path": "a"}], options={"card": 1}) == ["options.card: must be true or false, got 1"]


@pytest.mark.parametrize(
    ("body", "owner", "cure"),
    [
        ("seed: int = 0", "modelmerger", "rename it in plugin 'greedy' from acme-merge 1.0."),
        ("weight_decay: float = 0.0", "strategy 'weighted' from modelmerger", "switch one of them off."),
        ("preserve_tokenizer: bool = True", "plugin 'tokenizer' from modelmerger", "switch one of them off."),
    ],
)
def test_an_option_with_two_owners_is_an_error_that_names_both_and_what_can_be_done(
    distribution: Callable[..., Path], body: str, owner: str, cure: str
) -> None:
    install(distribution, [("plugin", "greedy", PLUGIN.format(body=body))])
    with pytest.raises(PluginError) as caught:
        settings(models=[{"path": "a"}])
    message = str(caught.value)
    assert f"option '{body.split(':', maxsplit=1)[0]}' is declared twice" in message
    assert owner in message
    assert "plugin 'greedy' from acme-merge 1.0" in message
    assert message.endswith(f"; {cure}")


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("power: 'Nowhere' = 1", "the types of its options cannot be resolved"),
        ("power: float = 2.0\nOptions = dict", "must be an attrs class"),
    ],
)
def test_options_that_cannot_be_used_are_the_plugins_fault(
    distribution: Callable[..., Path], body: str, reason: str
) -> None:
    install(distribution, [("strategy", "powered", STRATEGY.format(body=body))])
    with pytest.raises(PluginError, match=r"strategy 'powered' from acme-merge 1.0") as caught:
        settings("powered", models=[{"path": "a"}])
    assert reason in str(caught.value)


def test_paths_with_a_tilde_are_of_the_home_directory(models: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(models.folder))
    report = merge(MergeConfig(strategy="weighted", models=[{"path": "~/a"}], output_path="~/merged"))
    assert report.output == os.path.join(models.folder, "merged")
    assert report.models == ["a"]


def test_what_is_wrong_with_one_plugin_hides_nothing_about_others(distribution: Callable[..., Path]) -> None:
    strict = """
from attrs import frozen
from modelmerger import Problem, Section, hookimpl

@frozen
class Named:
    by: str = ""

sections = (Section({name!r}, Named),)

@hookimpl
def check_config(settings):
    given = settings.sections[{name!r}]
    if given and not given.by:
        yield Problem("by whom?", {name!r})
    if len(settings.models) > 1:
        yield Problem("only one model", "models", severity="warning")
"""
    kinds = [("plugin", name, strict.format(name=name)) for name in ("first", "second")]
    install(distribution, kinds)
    given: dict[str, Any] = {"models": [{"path": "a"}], "first": {"bye": "me"}, "second": {"by": ""}}
    assert problems(**given) == ["first: unknown key 'bye', did you mean 'by'?", "second: by whom?"]
    assert problems(**given | {"options": {"verbos": True}}) == [
        "first: unknown key 'bye', did you mean 'by'?",
        "options: unknown key 'verbos', did you mean 'verbose'?",
        "second: by whom?",
    ]
    notes = settings(models=[{"path": "a"}, {"path": "b"}]).notes
    assert [str(note) for note in notes] == ["models: only one model"] * 2


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"peft_config": {"rank": 4}}, "peft_config: unknown key 'rank' in here. Write it under options"),
        ({"options": {"merge_adapters": True}}, "options: unknown key 'merge_adapters' in here. Write it under peft_config"),
        ({"options": {"metrics": []}}, "options: unknown key 'metrics' in here. Write it under validation"),
        ({"options": {"weight": 2}}, "options: unknown key 'weight' in here. Write it beside the path of a model, in models"),
        ({"models": [{"path": "a", "seed": 1}]}, "models[0]: unknown key 'seed' in here. Write it under options"),
        ({"validation": {"torch_dtype": "float32"}}, "validation: unknown key 'torch_dtype' in here. Write it under options"),
        ({"metrics": []}, "config: unknown key 'metrics' in here. Write it under validation"),
        ({"options": {"metric": []}}, "options: unknown key 'metric'"),
        ({"validation": {"seeed": 1}}, "validation: unknown key 'seeed', did you mean 'seed'?"),
        (
            {"models": [{"merge": {"strategy": "weighted", "models": [{"path": "a"}], "options": {"merge_adapters": True}}}]},
            "models[0].merge.options: unknown key 'merge_adapters' in here. Write it under peft_config",
        ),
    ],
)  # fmt: skip
def test_a_key_in_the_wrong_place_says_the_right_one(given: dict[str, Any], said: str) -> None:
    assert problems(**{"models": [{"path": "a"}], **given}) == [said]


def test_a_key_of_what_is_switched_off_is_said_to_be_its(
    distribution: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    options = "from attrs import frozen\n\n@frozen\nclass Options:\n    stamp: str = ''\n"
    install(distribution, [("plugin", "stamper", options), ("strategy", "stamping", WEIGHTS_SQUARED + options)])
    given: dict[str, Any] = {"models": [{"path": "a"}], "options": {"stamp": "x"}}
    assert settings(**given).plugin_options["stamper"].stamp == "x"
    monkeypatch.setenv("MODELMERGER_DISABLE_PLUGINS", "stamper")
    theirs = "options: 'stamp' belongs to stamping from acme-merge 1.0, and the strategy is weighted. Leave it out"
    assert problems(**given) == [theirs]
    monkeypatch.setenv("MODELMERGER_DISABLE_PLUGINS", "acme-merge")
    off = "which is switched off: MODELMERGER_DISABLE_PLUGINS names it"
    assert problems(**given) == [
        f"options: 'stamp' belongs to plugin 'stamper' from acme-merge 1.0, {off}. Leave it out"
    ]


def test_a_model_is_validated_without_a_merge_by_what_stands_around_one() -> None:
    found, asked, hooks, notes = resolve_validation(
        {"base_model": "b", "options": {"device_map": "cpu"}, "peft_config": {}, "validation": {"sample_size": 2}}
    )
    assert found is not None
    assert (found.models, found.base_model, found.options.device_map) == ((), "b", "cpu")
    assert (asked.sample_size, list(notes)) == (2, [])
    assert hooks.validation.validators
    assert resolve_validation({"validation": {"sample_size": 2}})[0] is None


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"base_model": 7}, ["base_model: must be a path, as a text, got 7"]),
        ({"options": 5}, ["options: must be a mapping, got 5"]),
        ({"options": {"low": 1, "seed": -1}}, ["options: unknown key 'low'", "options.seed: must be"]),
        ({"peft_config": {"x": 1}}, ["peft_config: unknown key 'x'"]),
        ({"models": []}, ["config: the key 'strategy' is missing", "models: "]),
        ({"options": {}, "stategy": "ties"}, ["config: the key 'strategy' is missing"]),
    ],
)
def test_what_is_wrong_around_a_model_is_said(given: dict[str, Any], said: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        resolve_validation(given)
    lines = [str(problem) for problem in caught.value.problems]
    assert all(any(line.startswith(one) for line in lines) for one in said), lines
