"""Adapters that cannot be merged, hostile ones among them: one clear sentence each, nothing opened that should not be."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import modelmerger
import pytest
import torch
from inputs.watching import Seen, watched
from modelmerger import ConfigError, InputError, MergeConfig, ModelCompatibilityError, ModelMerger, NumericError
from plugins.peft_adapters.tiny_adapters import gpt2, make_adapter, make_base, qwen2, qwen3_moe
from safetensors.torch import load_file, save_file


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    folder = tmp_path_factory.mktemp("made")
    base = make_base(folder / "base", qwen2)
    return SimpleNamespace(base=base, adapter=make_adapter(folder / "adapter", base, 1))


@pytest.fixture
def adapter(made: SimpleNamespace, tmp_path: Path) -> Path:
    """A copy to be spoilt."""
    return shutil.copytree(made.adapter, tmp_path / "spoilt")


def merger(*adapters: Path, **config: Any) -> ModelMerger:
    return ModelMerger(MergeConfig(strategy="weighted", models=[{"path": str(path)} for path in adapters], **config))


def change(adapter: Path, **fields: Any) -> None:
    path = adapter / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def change_tensors(adapter: Path, edit: Callable[[dict[str, torch.Tensor]], None]) -> None:
    path = adapter / "adapter_model.safetensors"
    tensors = load_file(path)
    edit(tensors)
    save_file(tensors, path, metadata={"format": "pt"})


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"peft_type": "PROMPT_TUNING"}, "of the kind 'PROMPT_TUNING', which cannot be merged"),
        ({"peft_type": None}, "of the kind None"),
        ({"never_heard_of": 3}, "sets never_heard_of to 3"),
        ({"target_parameters": ["experts.w"]}, "holds no factors of experts.w, which target_parameters names"),
        ({"target_parameters": ["q_proj.weight", "q_proj.w"]}, "is one of 1 pairs of factors for 2 parameters"),
        ({"target_parameters": ["q_proj.w"]}, "'base' has no model.layers.0.self_attn.q_proj.w, whole or by expert"),
        ({"target_parameters": "all"}, "has target_parameters all, where a list of names is due"),
        ({"trainable_token_indices": [1]}, "holds no rows for trainable_token_indices"),
        ({"use_rslora": "yes"}, "sets use_rslora to yes, where true or false is due"),
        ({"use_qalora": True}, "sets use_qalora to True"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights 'pissa', which changes the base model too"),
        ({"rank_pattern": {"(a+)+$": 4}}, "a pattern that could take very long"),
        ({"rank_pattern": {"(": 4}}, "which is no pattern"),
        ({"rank_pattern": [1]}, "where a mapping is due"),
        ({"rank_pattern": {"q_proj": 3}}, "has rank 4, and the adapter's config says 3"),
        ({"lora_alpha": "much"}, "no finite number as the alpha"),
        ({"lora_alpha": True}, "no finite number as the alpha"),
        ({"lora_alpha": float("nan")}, "no finite number as the alpha"),
        ({"lora_alpha": 10**400}, "no finite number as the alpha"),
        ({"alpha_pattern": {"q_proj": float("-inf")}}, "no finite number as the alpha"),
        ({"use_dora": True}, "contradicts use_dora"),
        ({"base_model_name_or_path": "no/such-model"}, "neither a directory nor in the local cache"),
        ({"base_model_name_or_path": "../../../etc\0"}, "neither a directory nor in the local cache"),
        ({"base_model_name_or_path": "\ud800"}, "neither a directory nor in the local cache"),
        ({"revision": "\0", "base_model_name_or_path": "no/such"}, "neither a directory nor in the local cache"),
        ({"base_model_name_or_path": "https://example.org/x"}, "neither a directory nor in the local cache"),
        ({"base_model_name_or_path": 7}, "neither a directory nor in the local cache"),
    ],
)
def test_a_config_that_means_what_we_do_not_do_is_refused(adapter: Path, fields: dict[str, Any], sentence: str) -> None:
    """B12, C8: by name, with no socket, no process and nothing imported."""
    change(adapter, auto_mapping={"parent_library": "evil", "base_model_class": "Evil"})
    change(adapter, **fields)
    seen = Seen()
    with watched(seen), pytest.raises(InputError) as refusal:
        merger(adapter).check_compatibility()
    assert sentence in str(refusal.value)
    assert all(len(line) <= 300 for line in refusal.value.lines())
    assert (seen.network, seen.processes, seen.unpickled) == ([], [], [])


SAY_NOTHING_OF_THE_WEIGHTS = {
    *("task_type", "auto_mapping", "peft_version", "revision", "inference_mode", "target_modules", "exclude_modules"),
    *("layers_to_transform", "layers_pattern", "modules_to_save", "bias", "lora_dropout", "megatron_config", "megatron_core"),
    *("loftq_config", "eva_config", "corda_config", "lora_ga_config", "qalora_group_size", "runtime_config", "ensure_weight_tying"),
}  # fmt: skip


def test_every_field_of_peft_has_no_meaning_for_weights_or_is_read(adapter: Path) -> None:
    """Fields that later versions of PEFT add are refused; what it stores of those that are not, is not looked at."""
    import dataclasses

    from peft import LoraConfig

    silent = set()
    original = (adapter / "adapter_config.json").read_text()
    for field in dataclasses.fields(LoraConfig):
        change(adapter, **{field.name: {"strange": "strange"}})
        try:
            merger(adapter).check_compatibility()
            silent.add(field.name)
        except InputError as refusal:
            said = {"r": "config says {'strange'", "lora_alpha": "as the alpha"}.get(field.name, field.name)
            said = {"base_model_name_or_path": "names the base model", "peft_type": "of the kind"}.get(field.name, said)
            assert said in str(refusal), f"{field.name}: {refusal}"
        (adapter / "adapter_config.json").write_text(original)
    assert silent == SAY_NOTHING_OF_THE_WEIGHTS


def test_projections_that_were_not_saved(made: SimpleNamespace, adapter: Path, tmp_path: Path) -> None:
    from peft import VeraConfig

    vera = VeraConfig(r=4, target_modules=["q_proj", "v_proj"])
    saved = make_adapter(tmp_path / "saved", made.base, 1, config=vera)
    change_tensors(saved, lambda tensors: tensors.pop("base_model.vera_B"))
    with pytest.raises(InputError, match=r"goes with base_model.vera_A and base_model.vera_B, which are not both"):
        merger(saved).check_compatibility()
    change(saved, save_projection=False)
    with pytest.raises(InputError, match=r"their seed alone gives others.*save_projection=True") as refusal:
        merger(saved).check_compatibility()
    assert len(refusal.value.problems) == 1


@pytest.mark.parametrize("rank", [0, 2.0, True, None, 10**400])
def test_a_rank_that_scales_nothing_is_refused(made: SimpleNamespace, tmp_path: Path, rank: Any) -> None:
    from peft import LoKrConfig

    saved = make_adapter(tmp_path / "saved", made.base, 1, config=LoKrConfig(r=2, target_modules=["q_proj"]))
    change(saved, r=rank)
    with pytest.raises(InputError, match=r"has the rank .* in the adapter's config"):
        merger(saved).check_compatibility()


def test_an_adapter_that_is_its_own_base_is_refused(adapter: Path) -> None:
    change(adapter, base_model_name_or_path=str(adapter))
    with pytest.raises(InputError, match="is an adapter itself"):
        merger(adapter).check_compatibility()


def test_keys_that_match_nothing_or_partly_are_listed(adapter: Path) -> None:
    """C8."""

    def spoil(tensors: dict[str, torch.Tensor]) -> None:
        layer = "base_model.model.model.layers.0"
        del tensors[f"{layer}.self_attn.q_proj.lora_B.weight"]
        tensors["base_model.model.elsewhere.weight"] = torch.ones(2)
        tensors["strange"] = torch.ones(2)

    change_tensors(adapter, spoil)
    with pytest.raises(InputError) as refusal:
        merger(adapter).check_compatibility()
    said = str(refusal.value)
    assert "q_proj.lora_A.weight: is one of the parts lora_A" in said
    assert "elsewhere.weight: matches nothing: 'base' has no tensor elsewhere.weight" in said
    assert "strange: does not begin with 'base_model.model.'" in said
    assert len(refusal.value.problems) == 3


def test_a_base_of_another_shape_or_architecture_lists_every_key(made: SimpleNamespace, tmp_path: Path) -> None:
    other = make_base(tmp_path / "gpt2", gpt2)
    with pytest.raises(InputError) as refusal:
        merger(made.adapter, peft_config={"base_model_path": str(other)}).check_compatibility()
    assert len(refusal.value.problems) == len(load_file(made.adapter / "adapter_model.safetensors"))


def test_another_base_than_the_adapter_names_is_a_warning(made: SimpleNamespace, tmp_path: Path) -> None:
    other = make_base(tmp_path / "other", qwen2, 5)
    notes = merger(made.adapter, peft_config={"base_model_path": str(other)}).check_compatibility()
    assert [note.severity for note in notes if "was trained on" in note.message] == ["warning"]
    assert not [note for note in merger(made.adapter).check_compatibility() if "was trained on" in note.message]


def test_nan_in_an_adapter_names_adapter_and_key(adapter: Path, tmp_path: Path) -> None:
    """C1, exit 5."""
    key = "base_model.model.model.layers.1.mlp.down_proj.lora_A.weight"
    change_tensors(adapter, lambda tensors: tensors[key].view(-1)[:2].fill_(float("nan")))
    config = MergeConfig(strategy="weighted", models=[{"path": str(adapter)}], output_path=str(tmp_path / "merged"))
    with pytest.raises(NumericError, match="the adapter holds 2 NaN") as refusal:
        modelmerger.merge(config)
    assert key in str(refusal.value)
    assert not (tmp_path / "merged").exists()


def test_a_pickled_adapter_is_refused(adapter: Path) -> None:
    """B1."""
    (adapter / "adapter_model.safetensors").rename(adapter / "adapter_model.bin")
    seen = Seen()
    with watched(seen), pytest.raises(InputError, match="is pickled"):
        merger(adapter).check_compatibility()
    assert seen.unpickled == []


class Explosive:
    """Makes a file when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return (open, (str(self.mark), "w"))


@pytest.mark.parametrize("merge_adapters", [True, False])
def test_nothing_of_a_pickled_adapter_is_executed(
    made: SimpleNamespace, adapter: Path, tmp_path: Path, merge_adapters: bool
) -> None:
    """B1: with allow_pickle, tensors are read and other objects refused."""
    tensors = load_file(adapter / "adapter_model.safetensors")
    (adapter / "adapter_model.safetensors").unlink()
    torch.save(tensors, adapter / "adapter_model.bin")
    config = {"options": {"allow_pickle": True}, "peft_config": {"merge_adapters": merge_adapters}}
    for name, path in {"pickled": adapter, "sound": made.adapter}.items():
        models = [{"path": str(path)}]
        modelmerger.merge(MergeConfig(strategy="weighted", models=models, output_path=str(tmp_path / name), **config))
    pickled, sound = (next((tmp_path / name).glob("*model.safetensors")) for name in ("pickled", "sound"))
    assert pickled.read_bytes() == sound.read_bytes()

    torch.save(tensors | {"evil": Explosive(tmp_path / "mark")}, adapter / "adapter_model.bin")
    with pytest.raises(InputError, match=r"adapter_model\.bin"):
        merger(adapter, **config).plan()
    assert not (tmp_path / "mark").exists()


def test_merged_updates_refuse_parameters_that_differ(made: SimpleNamespace, tmp_path: Path) -> None:
    base = make_base(tmp_path / "moe", qwen3_moe)
    both, one = (
        make_adapter(tmp_path / name, base, 1, target_modules=[], target_parameters=parameters)
        for name, parameters in {
            "both": ["experts.gate_up_proj", "experts.down_proj"],
            "one": ["experts.down_proj"],
        }.items()
    )
    with pytest.raises(
        ModelCompatibilityError, match=r"has down_proj and down_proj, gate_up_proj changed by different"
    ):
        together(both, one).plan()
    with pytest.raises(ModelCompatibilityError, match=r"of which PEFT makes no weighted sum. Use linear"):
        together(both, options={"merge_method": "peft_linear"}).plan()


def test_keys_that_match_partly_end_a_merge_of_updates(adapter: Path, made: SimpleNamespace) -> None:
    """C8."""
    key = "base_model.model.model.layers.1.mlp.down_proj.lora_B.weight"
    change_tensors(adapter, lambda tensors: tensors.pop(key))
    with pytest.raises(InputError, match=r"layers.1.mlp.down_proj.lora_A.weight: is one of the parts lora_A"):
        together(made.adapter, adapter).plan()


def test_a_name_that_is_not_there_says_which_are(adapter: Path) -> None:
    with pytest.raises(InputError, match=r"has no adapter 'other'.*It has: default"):
        merger(adapter, peft_config={"adapter_names": ["default", "other"]}).check_compatibility()
    with pytest.raises(ConfigError, match="names of sub-folders"):
        merger(adapter, peft_config={"adapter_names": ["../spoilt"]})


def test_options_that_contradict(made: SimpleNamespace, tmp_path: Path) -> None:
    with pytest.raises(ModelCompatibilityError, match="contradicts merge_adapters: false"):
        merger(made.adapter, options={"preserve_base_model": True}).check_compatibility()
    with pytest.raises(ModelCompatibilityError, match=r"options.merge_method: is of use to adapters alone"):
        merger(made.base, options={"merge_method": "svd"}).check_compatibility()
    with pytest.raises(ModelCompatibilityError, match=r"options.rank: says how adapters are merged into an adapter"):
        merger(made.adapter, options={"rank": 4}).check_compatibility()
    with pytest.raises(ConfigError, match="Give the same path, or one of them"):
        merger(made.adapter, base_model=str(made.base), peft_config={"base_model_path": str(tmp_path)})


def together(*adapters: Path, strategy: str = "weighted", **config: Any) -> ModelMerger:
    """A merger of their updates."""
    peft = {"merge_adapters": True, **config.pop("peft_config", {})}
    models = [{"path": str(path)} for path in adapters]
    return ModelMerger(MergeConfig(strategy=strategy, models=models, peft_config=peft, **config))


def test_options_that_contradict_a_merge_of_updates(made: SimpleNamespace) -> None:
    with pytest.raises(ModelCompatibilityError, match=r"options.rank: belongs to merge_method: svd, and it is linear"):
        together(made.adapter, options={"rank": 4}).plan()
    with pytest.raises(ModelCompatibilityError, match=r"options.rank: belongs to merge_method: svd, and peft_linear"):
        together(made.adapter, options={"rank": 4, "merge_method": "peft_linear"}).plan()
    with pytest.raises(
        ModelCompatibilityError, match="is a full model, and merge_adapters: true merges adapters alone"
    ):
        together(made.adapter, made.base).plan()
    options = {"clamp_weights": True}
    peft = {"base_model_path": str(made.base)}
    with pytest.raises(ModelCompatibilityError, match=r"options.clamp_weights: clamps merged weights"):
        together(made.adapter, strategy="task_arithmetic", options=options, peft_config=peft).plan()


def test_full_models_alone_are_merged_as_ever(made: SimpleNamespace) -> None:
    notes = together(made.base, made.base).check_compatibility()
    assert any("peft_config has no effect" in note.message for note in notes)


@pytest.mark.parametrize("kind", ["DoRA", "IA³", "LoHa", "LoKr"])
def test_updates_that_are_no_low_rank_matrices_are_refused(made: SimpleNamespace, tmp_path: Path, kind: str) -> None:
    from peft import IA3Config, LoHaConfig, LoKrConfig

    layers = ["q_proj", "v_proj"]
    settings: dict[str, dict[str, Any]] = {
        "DoRA": {"use_dora": True},
        "IA³": {"config": IA3Config(target_modules=layers, feedforward_modules=[])},
        "LoHa": {"config": LoHaConfig(r=2, target_modules=layers)},
        "LoKr": {"config": LoKrConfig(r=2, target_modules=layers)},
    }
    adapter = make_adapter(tmp_path / "adapter", made.base, 1, **settings[kind])
    with pytest.raises(ModelCompatibilityError, match=f"is a {kind} adapter.*merge_adapters: false") as refusal:
        together(made.adapter, adapter).plan()
    assert len(refusal.value.problems) == 1


def test_peft_linear_wants_one_rank(made: SimpleNamespace, tmp_path: Path) -> None:
    adapter = make_adapter(tmp_path / "adapter", made.base, 1, r=3)
    with pytest.raises(ModelCompatibilityError, match="has updates of the ranks 3, 4, and peft_linear"):
        together(made.adapter, adapter, options={"merge_method": "peft_linear"}).plan()


def test_rows_of_an_embedding_that_another_adapter_changes_otherwise(made: SimpleNamespace, tmp_path: Path) -> None:
    rows = make_adapter(tmp_path / "rows", made.base, 1, trainable_token_indices=[1, 2])
    factors = make_adapter(tmp_path / "factors", made.base, 1, target_modules=["embed_tokens"])
    with pytest.raises(ModelCompatibilityError, match="has some rows replaced by one adapter"):
        together(rows, factors).plan()


@pytest.mark.parametrize("merge_adapters", [True, False])
def test_task_arithmetic_on_adapters_of_different_bases(
    made: SimpleNamespace, tmp_path: Path, merge_adapters: bool
) -> None:
    """There is no base whose task vectors they all are."""
    other = make_base(tmp_path / "other", qwen2, 5)
    adapter = make_adapter(tmp_path / "second", other, 1)
    peft = {"merge_adapters": merge_adapters}
    with pytest.raises(
        ModelCompatibilityError, match=r"belongs to the base .*other, and 'adapter' to .*base_model_path"
    ):
        together(made.adapter, adapter, strategy="task_arithmetic", peft_config=peft).check_compatibility()


def test_full_models_bring_no_base(made: SimpleNamespace) -> None:
    with pytest.raises(ConfigError, match=r"task_arithmetic needs base_model.*adapters know theirs"):
        together(made.base, strategy="task_arithmetic").check_compatibility()


def test_adapters_of_different_bases(made: SimpleNamespace, tmp_path: Path) -> None:
    other = make_base(tmp_path / "other", qwen2, 5)
    adapter = make_adapter(tmp_path / "adapter", other, 1)
    with pytest.raises(
        ModelCompatibilityError, match=r"belongs to the base .*other, and 'adapter' to .*base_model_path"
    ):
        ModelMerger(
            MergeConfig(
                strategy="weighted",
                models=[{"path": str(made.adapter)}, {"path": str(adapter), "name": "second"}],
                peft_config={"merge_adapters": True},
            )
        ).plan()


@pytest.mark.parametrize("options", [{}, {"allow_nonfinite": True}])
def test_nan_in_an_adapter_ends_a_merge_of_updates(made: SimpleNamespace, adapter: Path, options: Any) -> None:
    """C1, exit 5."""
    key = "base_model.model.model.layers.1.mlp.down_proj.lora_B.weight"
    change_tensors(adapter, lambda tensors: tensors[key].view(-1)[:2].fill_(float("nan")))
    with pytest.raises(NumericError, match="the adapter holds 2 NaNs") as refusal:
        together(made.adapter, adapter, options=options).plan()
    assert key in str(refusal.value)
    assert str(adapter) in str(refusal.value)


def test_weights_that_leave_nothing(made: SimpleNamespace) -> None:
    with pytest.raises(ConfigError, match="nothing would be left"):
        ModelMerger(
            MergeConfig(
                strategy="weighted",
                models=[{"path": str(made.adapter), "weight": 0}],
                options={"normalize_weights": False},
                peft_config={"merge_adapters": True},
            )
        ).plan()


def test_opposite_updates_have_no_arc_between_them(made: SimpleNamespace, adapter: Path) -> None:
    def turn(tensors: dict[str, torch.Tensor]) -> None:
        tensors |= {key: -tensor for key, tensor in tensors.items() if "lora_A" in key}

    change_tensors(adapter, turn)
    with pytest.raises(NumericError, match=r"model.layers.0.*opposite directions"):
        together(made.adapter, adapter, strategy="slerp").plan()
