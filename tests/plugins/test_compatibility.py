"""What the models' configs and tokenizers say of each other is in tests/inputs; here: who is compared with whom."""

import json
from types import SimpleNamespace
from typing import Any

import pytest
from conftest import CONFIG
from modelmerger import MergeConfig, ModelCompatibilityError, ModelMerger


def write(models: SimpleNamespace, **sizes: int) -> None:
    for name, size in sizes.items():
        (getattr(models, name) / "config.json").write_text(json.dumps({**CONFIG, "vocab_size": size}))


def test_every_model_is_compared_with_the_donor_alone(models: SimpleNamespace, config: dict[str, Any]) -> None:
    write(models, a=24, b=25, base=25)
    config["models"].append({"path": str(models.base)})

    with pytest.raises(ModelCompatibilityError) as refusal:
        ModelMerger(MergeConfig(**config)).check_compatibility()

    assert [problem.where for problem in refusal.value.problems] == [
        f"{p}/config.json" for p in (models.b, models.base)
    ]
    assert {problem.message for problem in refusal.value.problems} == {
        "vocab_size is 25 here and 24 in 'a'. Merge models of one architecture."
    }


@pytest.mark.parametrize("missing", ["donor", "union"])
def test_another_number_of_layers_is_a_warning_where_tensors_may_be_missing(
    models: SimpleNamespace, config: dict[str, Any], missing: str
) -> None:
    for name, layers in (("a", 2), ("b", 3)):
        (getattr(models, name) / "config.json").write_text(json.dumps({**CONFIG, "num_hidden_layers": layers}))
    with pytest.raises(ModelCompatibilityError, match="num_hidden_layers is 3 here and 2 in 'a'"):
        ModelMerger(MergeConfig(**config)).check_compatibility()
    config["options"] = {"missing_tensors": missing}

    notes = ModelMerger(MergeConfig(**config)).check_compatibility()

    assert any(n.severity == "warning" and "num_hidden_layers is 3 here" in n.message for n in notes)


def test_the_base_model_is_what_the_others_are_compared_with(models: SimpleNamespace, config: dict[str, Any]) -> None:
    write(models, a=25, b=25, base=24)
    config |= {"strategy": "task_arithmetic", "base_model": str(models.base)}

    with pytest.raises(ModelCompatibilityError) as refusal:
        ModelMerger(MergeConfig(**config)).check_compatibility()

    assert [problem.where for problem in refusal.value.problems] == [f"{p}/config.json" for p in (models.a, models.b)]


def test_models_without_config_are_not_compared(models: SimpleNamespace, config: dict[str, Any]) -> None:
    write(models, a=25)
    (models.b / "config.json").unlink()

    assert ModelMerger(MergeConfig(**config)).check_compatibility()


def test_a_key_that_one_config_lacks_is_no_difference(models: SimpleNamespace, config: dict[str, Any]) -> None:
    (models.b / "config.json").write_text(json.dumps({"model_type": "llama", "rope_theta": 1.0}))

    notes = ModelMerger(MergeConfig(**config)).check_compatibility()

    assert [note.severity for note in notes] == ["note"]
