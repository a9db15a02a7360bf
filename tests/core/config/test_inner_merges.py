"""Merges within a merge are checked as strictly as the outermost one, and each problem says its whole place."""

from typing import Any

import pytest
import torch
from modelmerger import ConfigError, MergeConfig
from modelmerger.config.naming import references
from modelmerger.config.resolve import resolve

TWO = [{"path": "./a"}, {"path": "./b"}]
SOUP = {"strategy": "weighted", "models": TWO}


def within(merge: Any, **more: Any) -> dict[str, Any]:
    return {"strategy": "weighted", "models": [{"merge": merge, "weight": 0.5}, {"path": "./c"}], **more}


def problems(config: dict[str, Any]) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        MergeConfig.from_dict(config)
    return caught.value.lines()


@pytest.mark.parametrize(
    ("merge", "problem"),
    [
        ({}, "models[0].merge: the key 'strategy' is missing. Installed are "),
        ({"strategy": "weighted"}, "models[0].merge: the key 'models' is missing. "),
        ({"strategy": "wieghted", "models": TWO}, "models[0].merge: no strategy is named 'wieghted'; did you mean 'weighted'?"),
        ({**SOUP, "modles": []}, "models[0].merge: unknown key 'modles', did you mean 'models'?"),
        ({**SOUP, "output_path": "x"}, "models[0].merge: unknown key 'output_path'"),
        ({**SOUP, "validation": {}}, "models[0].merge: unknown key 'validation'"),
        ({**SOUP, "merges": {}}, "models[0].merge: unknown key 'merges'"),
        ({**SOUP, "models": [{"path": "a", "weight": "1"}]}, "models[0].merge.models[0].weight: must be a number or "),
        ({**SOUP, "models": [{"path": "a", "wieght": 1}]}, "models[0].merge.models[0]: unknown key 'wieght', did you mean 'weight'?"),
        ({**SOUP, "models": [{"path": "a", "sparsity": 1}, {}]}, "models[0].merge.models[0]: unknown key 'sparsity'"),
        ({**SOUP, "models": []}, "models[0].merge.models: must hold at least one model"),
        ({**SOUP, "options": {"weight_decay": 2}}, "models[0].merge.options.weight_decay: must be in [0, 1), got 2.0"),
        ({**SOUP, "options": {"normalize_before_slerp": True}}, "models[0].merge.options: 'normalize_before_slerp' belongs to slerp, and the strategy is weighted. Leave it out"),
        ({**SOUP, "options": {"overwrite": True}}, "models[0].merge.options: 'overwrite' is of the whole run. Give it in the options of the outermost merge"),
        ({**SOUP, "options": {"allow_pickle": True}}, "models[0].merge.options: 'allow_pickle' is of the whole run. "),
        ({**SOUP, "options": {"torch_dtype": "int8"}}, "models[0].merge.options.torch_dtype: must be one of "),
        ({**SOUP, "base_model": 5}, "models[0].merge.base_model: must be a path, as a text, got 5"),
        ({**SOUP, "peft_config": {"merge_adapters": 1}}, "models[0].merge.peft_config.merge_adapters: must be true or false, got 1"),
        ({"strategy": "slerp", "models": [{"path": "a"}]}, "models[0].merge.models: slerp merges exactly two models, 1 given"),
        ({"strategy": "task_arithmetic", "models": TWO}, "models[0].merge: task_arithmetic needs base_model. "),
        ({"strategy": "sequential", "models": [{"path": "a", "weight": 0.5}]}, "models[0].merge.models: sequential starts with the first model"),
        ({**SOUP, "models": [{"merge": {"strategy": "weighted", "models": [{"path": 1}]}}]}, "models[0].merge.models[0].merge.models[0].path: must be a text, got 1"),
        ({**SOUP, "base_model": {"merge": []}}, "models[0].merge.base_model.merge: must be a mapping with a 'strategy' and 'models', got []"),
        ({**SOUP, "models": [{"path": "a", "merge": SOUP}]}, "models[0].merge.models[0]: has a 'path' and a 'merge'. Give one of them"),
        ("soup", "models[0].merge: must be a mapping with a 'strategy' and 'models', got 'soup'"),
        (None, "models[0].merge: must be a mapping with a 'strategy' and 'models', got nothing"),
    ],
    ids=str,
)  # fmt: skip
def test_problems_say_their_whole_place(merge: Any, problem: str) -> None:
    found = problems(within(merge))
    assert len([line for line in found if line.startswith(problem)]) == 1, found


def test_all_problems_of_all_levels_are_said_at_once() -> None:
    deepest = {"strategy": "weighted", "models": [{"path": "a", "weight": "x"}]}
    middle = {"strategy": "weighted", "models": [{"merge": deepest}, {"path": ""}], "options": {"sed": 1}}
    found = problems({**within(middle), "output_path": 3, "base_model": {"merge": 1, "name": "x"}})
    assert found == [
        "base_model: unknown key 'name'",
        "output_path: must be a path, as a text, got 3",
        "models[0].merge.models[0].merge.models[0].weight: must be a number or a list or a mapping, got 'x'",
        "models[0].merge.models[1].path: must not be empty",
        "models[0].merge.options: unknown key 'sed', did you mean 'seed'?",
        "base_model.merge: must be a mapping with a 'strategy' and 'models', got 1",
    ]


def test_a_base_that_is_neither_a_path_nor_a_merge_is_refused_as_before() -> None:
    assert problems({**SOUP, "base_model": {"path": "x"}}) == [
        "base_model: must be a path, as a text, got {'path': 'x'}"
    ]


def named(merges: dict[Any, Any], *paths: str) -> dict[str, Any]:
    return {"strategy": "weighted", "models": [{"path": path} for path in paths], "merges": merges}


def test_a_merge_that_paths_name_is_one_object_wherever_it_is_used() -> None:
    stew = {"strategy": "weighted", "models": [{"path": "soup"}, {"path": "./d"}]}
    settings, hooks = resolve({**named({"stew": stew, "soup": SOUP}, "soup", "stew", "soup"), "base_model": "soup"})
    soup = settings.merges["models[0].path"]
    assert settings.merges["base_model"] is soup
    assert settings.merges["models[2].path"] is soup
    assert settings.merges["models[1].path"].merges["models[0].path"] is soup
    assert hooks.merges["base_model"] is hooks.merges["models[1].path"].merges["models[0].path"]
    assert soup.where == "merges.soup"
    assert [reference.name for reference in references(settings)] == ["soup", "stew", "soup#2", "soup (base)"]
    assert settings.notes == ()


def test_a_path_that_says_it_is_one_is_no_name() -> None:
    settings, _ = resolve(named({"soup": SOUP}, "./soup", "soup"))
    assert list(settings.merges) == ["models[1].path"]
    assert settings.all_paths == {
        "models[0].path": "./soup",
        "merges.soup.models[0].path": "./a",
        "merges.soup.models[1].path": "./b",
    }


def test_a_merge_that_nobody_names_is_checked_and_a_warning() -> None:
    bad = {"strategy": "weighted", "models": [{"path": ""}]}
    assert problems(named({"bad": bad}, "a")) == ["merges.bad.models[0].path: must not be empty"]
    stew = {"strategy": "weighted", "models": [{"path": "soup"}]}
    settings, _ = resolve(named({"soup": SOUP, "stew": stew}, "a"))
    (note,) = settings.notes
    assert (note.where, note.severity) == ("merges.stew", "warning")
    assert note.message.startswith("no path names this merge, so it is not made.")


def test_problems_of_a_merge_that_is_used_twice_are_said_once() -> None:
    bad = {"strategy": "weighted", "models": [{"path": ""}]}
    assert problems(named({"bad": bad}, "bad", "bad")) == ["merges.bad.models[0].path: must not be empty"]


@pytest.mark.parametrize("name", ["./soup", "a/b", "soup.v2", "so up", "~", "soup@main", "", 5, "<x>", "a[0]"])
def test_a_name_must_not_look_like_a_path(name: Any) -> None:
    assert problems(named({name: SOUP}, "a")) == [
        f"merges: {name!r} cannot be the name of a merge. Give one without spaces, dots, slashes and the like"
    ]


@pytest.mark.parametrize("merges", [[SOUP], "soup"])
def test_merges_are_a_mapping(merges: Any) -> None:
    (found,) = problems(named(merges, "a"))
    assert found.startswith("merges: must be a mapping from names to merges, got ")


def test_a_circle_is_named() -> None:
    def of(*paths: str) -> dict[str, Any]:
        return {"strategy": "weighted", "models": [{"path": path} for path in paths]}

    circle = {"a": of("x", "b"), "b": {"strategy": "weighted", "models": [{"merge": of("c")}]}, "c": of("a")}
    message = "merges.a: is made of itself: a → b → c → a. Give one of them another model"
    assert problems(named(circle, "a", "b", "c")) == [message]
    assert problems(named(circle, "x")) == [message]
    itself = {"a": {**of("x"), "base_model": "a"}}
    assert problems(named(itself, "a")) == ["merges.a: is made of itself: a → a. Give one of them another model"]


def deep(levels: int) -> dict[str, Any]:
    merge = SOUP
    for _ in range(levels - 1):
        merge = within(merge)
    return merge


def test_how_deep_merges_may_lie() -> None:
    settings, _ = resolve(within(deep(16)))
    for _ in range(16):
        settings = settings.merges["models[0].path"]
    assert settings.merges == {}
    for levels in (17, 1500):  # more than Python calls within calls
        (found,) = problems(within(deep(levels)))
        assert found.endswith("lies more than 16 merges deep. Publish one of them, and give its directory")
    chain = {f"m{i}": {"strategy": "weighted", "models": [{"path": f"m{i + 1}"}]} for i in range(17)}
    assert "merges.m16: lies more than 16 merges deep" in problems(named(chain, "m0"))[0]
    resolve(named({name: chain[name] for name in list(chain)[1:]}, "m1"))


def test_how_many_merges_there_may_be() -> None:
    doubling = {f"m{i}": {"strategy": "weighted", "models": [{"path": f"m{i + 1}"}] * 2} for i in range(12)}
    assert problems(named(doubling, "m0")) == [
        "config: comes to more than 1,000 merges, each counted wherever it is used. Publish some of them"
    ]


def test_options_of_an_inner_merge_are_its_own_but_for_those_of_the_run() -> None:
    inner = {**SOUP, "options": {"merge_embeddings": False, "weight_decay": 0.1}}
    options = {"seed": 5, "allow_nonfinite": True, "torch_dtype": "float16", "missing_tensors": "donor"}
    whole = {"low_memory_mode": True, "device_map": "cpu", "preserve_tokenizer": False}
    settings, _ = resolve({**within(inner), "options": {**options, **whole, "weight_decay": 0.5}})
    found = settings.merges["models[0].path"]
    assert (found.options.seed, found.options.allow_nonfinite) == (5, True)
    assert (found.options.torch_dtype, found.options.missing_tensors, found.options.merge_embeddings) == (
        "auto",
        "error",
        False,
    )
    assert (found.options.low_memory_mode, found.options.device_map) == (True, "cpu")
    assert found.strategy_options.weight_decay == 0.1
    assert found.plugin_options["tokenizer"].preserve_tokenizer is False
    assert found.validation is found.output_path is None
    own, _ = resolve({**within({**SOUP, "options": {"seed": 6, "allow_nonfinite": False}}), "options": options})
    assert own.merges["models[0].path"].options.seed == 6
    assert own.merges["models[0].path"].options.allow_nonfinite is False


def test_models_in_memory_within_keep_their_places() -> None:
    tensors = {"w": torch.ones(2)}
    inner = {**SOUP, "models": [{"path": tensors}, {"path": "./b"}], "base_model": tensors}
    config = MergeConfig(**within(inner, base_model={"merge": inner}, merges={"soup": inner}))
    settings, _ = resolve(config.as_dict())
    assert settings.live == {}
    assert settings.has_live
    for key in ("models[0].path", "base_model"):
        assert settings.merges[key].live == {"models[0].path": tensors, "base_model": tensors}
    with pytest.raises(ConfigError) as caught:
        config.to_yaml()
    assert [problem.where for problem in caught.value.problems] == [
        "models[0].merge.models[0].path", "models[0].merge.base_model", "base_model.merge.models[0].path",
        "base_model.merge.base_model", "merges.soup.models[0].path", "merges.soup.base_model",
    ]  # fmt: skip
    assert settings.given["models"][0]["merge"]["base_model"] == "<mapping of tensors in memory>"


def test_a_config_with_merges_is_written_as_it_was_read() -> None:
    given = {**within(SOUP, merges={"stew": SOUP}), "base_model": "stew"}
    config = MergeConfig.from_dict(given)
    assert config.as_dict() == given
    assert config.merges == {"stew": SOUP}
    again = MergeConfig(**{**given, "merges": {}, "base_model": {"merge": SOUP}})
    assert "merges" not in again.as_dict()


def test_the_name_of_a_merge_where_a_merge_is_due_says_how_names_are_written() -> None:
    named = {"merges": {"soup": SOUP}}
    mapping = "must be a mapping with a 'strategy' and 'models', got 'soup'"
    assert problems(within("soup", **named)) == [f"models[0].merge: {mapping}. Write path: soup to use that merge"]
    assert problems({**SOUP, **named, "base_model": {"merge": "soup"}}) == [
        f"base_model.merge: {mapping}. Write base_model: soup to use that merge"
    ]
