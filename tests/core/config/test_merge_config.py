"""`MergeConfig`: plain data, checked when it is made and whenever it is used, and the same from Python, YAML and JSON."""

import json
from pathlib import Path
from types import MappingProxyType, SimpleNamespace
from typing import Any

import modelmerger
import pytest
from modelmerger import ConfigError, MergeConfig, ModelMerger

from tests.core.plugging import BUILT_IN_STRATEGIES

MODELS = [{"path": "./a", "weight": 0.6}, {"path": "./b", "weight": 0.4, "name": "second"}]
FULL = {
    "strategy": "task_arithmetic",
    "models": [{"path": "./a", "weight": 1.2, "operation": "add"}, {"path": "./b", "weight": -0.3, "operation": "subtract"}],
    "base_model": "./base",
    "output_path": "./نموذج",
    "options": {"scaling_factor": 0.5, "clamp_weights": True, "clamp_range": [-2.0, 2.0], "log_level": None},
    "peft_config": {"merge_adapters": True, "adapter_names": ["default"]},
    "validation": {"run_tests": False, "test_prompts": {"gulf": ["شلونك؟"]}},
}  # fmt: skip


def test_values_are_kept_as_the_plain_data_they_were() -> None:
    config = MergeConfig(strategy="weighted", models=MODELS, options={"torch_dtype": "float16"})
    assert config.models is MODELS
    assert config.options == {"torch_dtype": "float16"}
    assert (config.base_model, config.output_path, config.peft_config, config.validation) == (None, None, {}, {})


def test_it_is_checked_when_it_is_made_with_every_problem() -> None:
    with pytest.raises(ConfigError) as caught:
        MergeConfig(
            strategy="weighted",
            models=[{"path": "./a", "wieght": 0.6}, {"path": "./b", "weight": "0.4"}],
            base_model=3,  # type: ignore[arg-type]  # a stand-in, or wrong on purpose
            options={"torch_dtyp": "float16", "verbose": "no"},
            peft_config={"adapters": []},
        )
    assert sorted(map(str, caught.value.problems)) == [
        "base_model: must be a path, as a text, got 3",
        "models[0]: unknown key 'wieght', did you mean 'weight'?",
        "models[1].weight: must be a number or a list or a mapping, got '0.4'. Write it without quotes",
        "options.verbose: must be true or false, got 'no'",
        "options: unknown key 'torch_dtyp', did you mean 'torch_dtype'?",
        "peft_config: unknown key 'adapters', did you mean 'adapter_names'?",
    ]


def test_it_is_checked_again_at_each_use(models: SimpleNamespace, config: dict[str, Any]) -> None:
    made = MergeConfig(**config)
    merger = ModelMerger(made)
    merger.check_compatibility()
    made.options["verbose"] = "no"
    for use in (
        merger.check_compatibility,
        merger.plan,
        merger.load_models,
        merger.merge,
        lambda: modelmerger.merge(made),
    ):
        with pytest.raises(ConfigError, match=r"options.verbose: must be true or false"):
            use()
    assert not models.output.exists()
    made.options["verbose"] = False
    assert modelmerger.merge(made).output == str(models.output)


def test_a_change_after_construction_takes_effect(models: SimpleNamespace, config: dict[str, Any]) -> None:
    made = MergeConfig(**config)
    merger = ModelMerger(made)
    before = merger.plan()
    made.models[0]["weight"] = 3.6
    made.options["torch_dtype"] = "float32"
    after = merger.plan()
    assert before.tensors[0].coefficients == pytest.approx((0.6, 0.4))
    assert after.tensors[0].coefficients == pytest.approx((0.9, 0.1))
    assert {tensor.dtype for tensor in after.tensors} == {"F32"}


@pytest.mark.parametrize("suffix", [".yaml", ".yml", ".json"])
def test_from_file_reads_what_python_would_say(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"merge{suffix}"
    path.write_text(json.dumps(FULL) if suffix == ".json" else MergeConfig(**FULL).to_yaml(), encoding="utf-8")
    assert MergeConfig.from_file(path) == MergeConfig(**FULL)
    assert MergeConfig.from_file(str(path)) == MergeConfig(**FULL)


def test_to_yaml_leaves_out_defaults_and_keeps_arabic_readable(tmp_path: Path) -> None:
    text = MergeConfig(strategy="weighted", models=MODELS, output_path="./نموذج").to_yaml()
    assert "نموذج" in text
    assert not {"base_model", "options", "peft_config", "validation"} & {
        line.split(":")[0] for line in text.splitlines()
    }
    (tmp_path / "c.yaml").write_text(text, encoding="utf-8")
    assert MergeConfig.from_file(tmp_path / "c.yaml").models == MODELS


def test_texts_that_look_like_something_else_survive_the_round_trip(tmp_path: Path) -> None:
    paths = [
        "no",
        "1e-3",
        "0.5",
        "null",
        "a: b",
        "~",
        "#x",
        " x ",
        "10:30",
        "2024-01-01",
        "'",
        '"',
        "a\\b",
        "سلام",
        "- a",
    ]
    config = MergeConfig(strategy="weighted", models=[{"path": path, "weight": 1e-8} for path in paths])
    (tmp_path / "c.yaml").write_text(config.to_yaml(), encoding="utf-8")
    assert MergeConfig.from_file(tmp_path / "c.yaml") == config


@pytest.mark.parametrize("suffix", [".json", ".yaml"])
def test_weights_by_layer_and_pattern_survive_the_round_trip_in_their_order(tmp_path: Path, suffix: str) -> None:
    patterns = {"*.mlp.*": [0.0, 0.5, 1.0], "model.layers.[0-9].*": 0.25, "default": 1.0, "*": -1e-8, "?": 2.0}
    models = [{"path": "./a", "weight": [0.25, 1]}, {"path": "./b", "weight": patterns}]
    config = MergeConfig(strategy="weighted", models=models)
    path = tmp_path / f"merge{suffix}"
    path.write_text(json.dumps(config.as_dict()) if suffix == ".json" else config.to_yaml(), encoding="utf-8")

    read = MergeConfig.from_file(path)

    assert read == config
    assert list(read.models[1]["weight"]) == list(patterns)


def test_from_dict_says_what_is_unknown_or_missing() -> None:
    with pytest.raises(ConfigError) as caught:
        MergeConfig.from_dict({"strategy": "weighted", "modles": MODELS})
    assert caught.value.lines() == [
        "config: unknown key 'modles', did you mean 'models'?",
        "config: the key 'models' is missing. Give a list of models, each with a 'path'",
    ]
    with pytest.raises(ConfigError) as caught:
        MergeConfig.from_dict({"output_path": "./x"})
    strategy, models = caught.value.lines()  # of so many names, those in the middle are left out
    assert strategy.startswith(
        f"config: the key 'strategy' is missing. Installed are {', '.join(BUILT_IN_STRATEGIES[:7])}"
    )
    assert strategy.endswith(", ".join(BUILT_IN_STRATEGIES[-7:]))
    assert models == "config: the key 'models' is missing. Give a list of models, each with a 'path'"


def test_keys_left_empty_in_a_file_are_as_if_left_out(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("strategy: weighted\nmodels:\n  - path: ./a\noptions:\noutput_path:\nvalidation:\n")
    assert MergeConfig.from_file(path) == MergeConfig(strategy="weighted", models=[{"path": "./a"}])


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("missing.yaml", None, "the file does not exist"),
        ("list.yaml", "- a\n", "the document must be a mapping of keys to values"),
        ("broken.json", '{"strategy": "weighted",}', "this is not JSON"),
        ("broken.yaml", "strategy: [weighted\n", "this is not YAML"),
        ("twice.yaml", "strategy: weighted\nstrategy: slerp\n", "line 2"),
        ("nan.yaml", "strategy: weighted\nmodels:\n  - path: a\n    weight: .nan\n", "line 4"),
    ],
)
def test_a_file_that_cannot_be_read_is_a_config_error_that_names_it(
    tmp_path: Path, name: str, content: str | None, reason: str
) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_text(content)
    with pytest.raises(ConfigError) as caught:
        MergeConfig.from_file(path)
    assert all(problem.where == str(path) for problem in caught.value.problems)
    assert reason in str(caught.value)


def test_a_file_with_many_mistakes_says_how_many_it_does_not_list(tmp_path: Path) -> None:
    path = tmp_path / "many.yaml"
    path.write_text("strategy: weighted\n" + "".join(f"seed: {n}\n" for n in range(36)))
    with pytest.raises(ConfigError) as caught:
        MergeConfig.from_file(path)
    lines = caught.value.lines()
    assert len(lines) == 21
    assert lines[-1] == "… and 15 more"


def test_a_path_may_be_an_object_wherever_a_path_may_stand(tmp_path: Path) -> None:
    inner = {"strategy": "weighted", "models": [{"path": Path("a")}, {"path": Path("b")}]}
    config = MergeConfig(
        strategy="task_arithmetic",
        models=[{"path": Path("c")}, {"merge": inner}, {"path": "soup"}],
        base_model=Path("base"),
        output_path=tmp_path / "out",
        options={"offload_folder": tmp_path},
        validation={"dataset": Path("texts.txt")},
        merges={"soup": {**inner, "models": ({"path": Path("d")},)}},
    )
    settings, _ = config.resolved()
    assert settings.all_paths == {
        "models[0].path": "c",
        "models[1].merge.models[0].path": "a",
        "models[1].merge.models[1].path": "b",
        "merges.soup.models[0].path": "d",
        "base_model": "base",
    }
    assert settings.output_path == str(tmp_path / "out")
    assert settings.options.offload_folder == str(tmp_path)
    assert settings.validation is not None
    assert settings.validation.dataset == "texts.txt"
    file = tmp_path / "config.yaml"
    file.write_text(config.to_yaml())
    assert MergeConfig.from_file(file) == config

    config.models[0]["path"] = Path("later")
    assert config.resolved()[0].models[0].path == "later"
    assert "path: later" in config.to_yaml()


@pytest.mark.parametrize("given", [3, None, ["weighted"]])
def test_what_is_no_config_is_refused_at_once(given: Any) -> None:
    for made in (ModelMerger, modelmerger.merge):
        with pytest.raises(
            ConfigError, match="the config must be a MergeConfig, a mapping or the path of a file, got "
        ):
            made(given)
    with pytest.raises(ConfigError, match="the config must be a mapping, got "):
        MergeConfig.from_dict(given)


def test_a_mapping_and_the_path_of_a_file_are_configs_too(
    models: SimpleNamespace, config: dict[str, Any], tmp_path: Path
) -> None:
    expected = ModelMerger(MergeConfig(**config)).plan().digest
    file = tmp_path / "merge.yaml"
    file.write_text(MergeConfig(**config).to_yaml())
    for given in (config, MappingProxyType(config), file, str(file)):
        merger = ModelMerger(given)
        assert isinstance(merger.config, MergeConfig)
        assert merger.plan().digest == expected
    assert modelmerger.merge(file).plan == expected
    assert modelmerger.merge({**config, "options": {"overwrite": True}}).strategy == "weighted"
    with pytest.raises(ConfigError, match="unknown key 'modles', did you mean 'models'"):
        ModelMerger({"strategy": "weighted", "modles": []})
    with pytest.raises(ConfigError, match=r"nowhere\.yaml"):
        ModelMerger("nowhere.yaml")
