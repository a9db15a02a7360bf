"""Adapters that cannot be read, hostile ones among them: one clear sentence each, and nothing is opened unduly."""

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import modelmerger
import pytest
import torch
from inputs.watching import Seen, watched
from modelmerger import ConfigError, InputError, MergeConfig, ModelCompatibilityError, NumericError
from plugins.peft_adapters.spoiling import change, change_tensors, merger
from plugins.peft_adapters.tiny_adapters import gpt2, make_adapter, make_base, qwen2
from safetensors.torch import load_file


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"peft_type": "PROMPT_TUNING"}, "of the kind 'PROMPT_TUNING', which cannot be merged"),
        (
            {"peft_type": "prefix_tuning"},
            "learns a prompt and changes no weight, so nothing can be folded. Leave it out",
        ),
        ({"peft_type": "XLORA"}, "what it changes depends on the input, so it cannot be folded"),
        ({"peft_type": "BOFT"}, "LORA, IA3, LOHA, LOKR, VERA can. Fold it into its base with PEFT (merge_and_unload)"),
        ({"peft_type": None}, "of the kind None, which cannot be merged: peft_type is one of LORA"),
        ({"peft_type": None, "fine_tune_type": "lora"}, "is an adapter of MLX, which names no peft_type. Fuse it"),
        ({"peft_type": None, "model_class": "BertModel"}, "is an adapter of AdapterHub"),
        ({"never_heard_of": 3, "peft_version": "0.99.1"}, "sets never_heard_of to 3, and what that does"),
        ({"kasa_config": {"a": 1}, "use_bdlora": True}, "(and 1 more such field), and what that does to the weights"),
        ({"target_parameters": ["experts.w"]}, "holds no factors of experts.w, which target_parameters names"),
        ({"target_parameters": ["q_proj.weight", "q_proj.w"]}, "is one of 1 pairs of factors for 2 parameters"),
        ({"target_parameters": ["q_proj.w"]}, "'base' has no model.layers.0.self_attn.q_proj.w, whole or by expert"),
        ({"target_parameters": "all"}, "has target_parameters all, where a list of names is due"),
        ({"trainable_token_indices": [1]}, "holds no rows for trainable_token_indices"),
        ({"use_rslora": "yes"}, "sets use_rslora to yes, where true or false is due"),
        ({"use_qalora": True}, "sets use_qalora to True"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights 'pissa', which changes the base model too"),
        ({"rank_pattern": {"(a+)+$": 4}}, "has '(a+)+$' in rank_pattern, and only names"),
        ({"alpha_pattern": {"(": 4, "[": 2}}, "has '(' in alpha_pattern (and 1 more such pattern), and only names"),
        ({"rank_pattern": [1]}, "where a mapping is due"),
        ({"rank_pattern": {"q_proj": 3}}, "has rank 4, and the adapter's config says 3"),
        ({"lora_alpha": "much"}, "no finite number as the alpha"),
        ({"lora_alpha": True}, "no finite number as the alpha"),
        ({"lora_alpha": float("nan")}, "NaN (line 1, key lora_alpha) is no number in JSON"),
        ({"lora_alpha": 10**400}, "no finite number as the alpha"),
        (
            {"alpha_pattern": {"q_proj": float("-inf")}},
            "-Infinity (line 1, key alpha_pattern.q_proj) is no number in JSON",
        ),
        ({"use_dora": True}, "contradicts use_dora"),
        ({"base_model_name_or_path": "no/such-model"}, "neither a directory nor in the local cache"),
        ({"base_model_name_or_path": "no/such-bnb-4bit"}, "or base_model: the 16-bit model that it was made from."),
        ({"base_model_name_or_path": "../../../etc\0"}, "neither a directory nor in the local cache"),
        ({"base_model_name_or_path": "\ud800"}, "neither a directory nor in the local cache"),
        ({"base_model_name_or_path": "https://example.org/x"}, "neither a directory nor in the local cache"),
        ({"base_model_name_or_path": 7}, "names no base model. Give peft_config.base_model_path, or base_model."),
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


@pytest.mark.parametrize(
    "fields",
    [
        {"lora_dtype": None, "lorap_lr_ratio": 2.0, "lorap_emb_lr": 1e-6, "model_key_mapping": {"a": "b"}},
        {"unsloth_fixed": True, "kasa_config": None, "use_bdlora": False},
    ],
)
def test_what_trainers_write_for_themselves_is_no_matter(adapter: Path, fields: dict[str, Any]) -> None:
    change(adapter, **fields)
    assert not [note for note in merger(adapter).check_compatibility() if "sets" in note.message]


def test_what_peft_drops_is_dropped_with_a_note(adapter: Path) -> None:
    change(adapter, **{f"never_heard_of_{i}": 3 for i in range(7)})
    (note,) = [note for note in merger(adapter).check_compatibility() if "sets" in note.message]
    names = ", ".join(f"never_heard_of_{i}" for i in range(5))
    assert (note.severity, note.where) == ("note", str(adapter / "adapter_config.json"))
    assert note.message == f"sets {names}, …, which PEFT does not know and ignores, and so does the merge."


@pytest.mark.parametrize("kind", ["LoraConfig", "IA3Config", "LoHaConfig", "LoKrConfig", "VeraConfig"])
def test_no_field_that_peft_knows_is_taken_for_one_that_it_drops(kind: str) -> None:
    """Otherwise a field that means something would be ignored."""
    import dataclasses

    import peft
    from modelmerger_plugins.peft_adapters.reading.fields import MEANINGLESS, MEANT, NOT_UNDERSTOOD

    fields = {field.name for field in dataclasses.fields(getattr(peft, kind))}
    assert fields <= MEANINGLESS | MEANT | NOT_UNDERSTOOD


SAY_NOTHING_OF_THE_WEIGHTS = {
    *("task_type", "auto_mapping", "peft_version", "revision", "inference_mode", "target_modules", "exclude_modules"),
    *("layers_to_transform", "layers_pattern", "modules_to_save", "bias", "lora_dropout", "megatron_config"),
    *("megatron_core", "loftq_config", "eva_config", "corda_config", "lora_ga_config", "qalora_group_size"),
    *("runtime_config", "ensure_weight_tying"),
}  # fmt: skip


def test_every_field_of_peft_has_no_meaning_for_weights_or_is_read(adapter: Path) -> None:
    """What PEFT stores of fields that are not refused is not looked at."""
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
            said = {"base_model_name_or_path": "names no base model", "peft_type": "of the kind"}.get(field.name, said)
            assert said in str(refusal), f"{field.name}: {refusal}"
        (adapter / "adapter_config.json").write_text(original)
    assert silent == SAY_NOTHING_OF_THE_WEIGHTS


def test_projections_that_were_not_saved(trained: SimpleNamespace, adapter: Path, tmp_path: Path) -> None:
    from peft import VeraConfig

    vera = VeraConfig(r=4, target_modules=["q_proj", "v_proj"])
    saved = make_adapter(tmp_path / "saved", trained.base, 1, config=vera)
    change_tensors(saved, lambda tensors: tensors.pop("base_model.vera_B"))
    with pytest.raises(InputError, match=r"goes with base_model.vera_A and base_model.vera_B, which are not both"):
        merger(saved).check_compatibility()
    change(saved, save_projection=False)
    with pytest.raises(InputError, match=r"their seed alone gives others.*save_projection=True") as refusal:
        merger(saved).check_compatibility()
    assert len(refusal.value.problems) == 1


@pytest.mark.parametrize("rank", [0, 2.0, True, None, 10**400])
def test_a_rank_that_scales_nothing_is_refused(trained: SimpleNamespace, tmp_path: Path, rank: Any) -> None:
    from peft import LoKrConfig

    saved = make_adapter(tmp_path / "saved", trained.base, 1, config=LoKrConfig(r=2, target_modules=["q_proj"]))
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


def test_a_base_of_another_architecture_is_one_problem(trained: SimpleNamespace, tmp_path: Path) -> None:
    other = make_base(tmp_path / "gpt2", gpt2)
    with pytest.raises(InputError) as refusal:
        merger(trained.adapter, peft_config={"base_model_path": str(other)}).check_compatibility()
    (problem,) = refusal.value.problems
    others = len(load_file(trained.adapter / "adapter_model.safetensors")) - 1
    assert f"({others} more like it). Is it the right base?" in problem.message


def test_another_base_than_the_adapter_names_is_a_warning(trained: SimpleNamespace, tmp_path: Path) -> None:
    other = make_base(tmp_path / "other", qwen2, 5)
    notes = merger(trained.adapter, peft_config={"base_model_path": str(other)}).check_compatibility()
    assert [note.severity for note in notes if "was trained on" in note.message] == ["warning"]
    assert not [note for note in merger(trained.adapter).check_compatibility() if "was trained on" in note.message]


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
    with watched(seen), pytest.raises(InputError, match="is a safetensors file, by what it holds"):
        merger(adapter).check_compatibility()
    torch.save({"x": torch.ones(1)}, adapter / "adapter_model.bin")
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
    trained: SimpleNamespace, adapter: Path, tmp_path: Path, merge_adapters: bool
) -> None:
    """B1: with allow_pickle, tensors are read and other objects refused."""
    tensors = load_file(adapter / "adapter_model.safetensors")
    (adapter / "adapter_model.safetensors").unlink()
    torch.save(tensors, adapter / "adapter_model.bin")
    config = {"options": {"allow_pickle": True}, "peft_config": {"merge_adapters": merge_adapters}}
    for name, path in {"pickled": adapter, "sound": trained.adapter}.items():
        models = [{"path": str(path)}]
        modelmerger.merge(MergeConfig(strategy="weighted", models=models, output_path=str(tmp_path / name), **config))
    pickled, sound = (next((tmp_path / name).glob("*model.safetensors")) for name in ("pickled", "sound"))
    assert pickled.read_bytes() == sound.read_bytes()

    torch.save(tensors | {"evil": Explosive(tmp_path / "mark")}, adapter / "adapter_model.bin")
    with pytest.raises(InputError, match=r"adapter_model\.bin"):
        merger(adapter, **config).plan()
    assert not (tmp_path / "mark").exists()


def test_a_name_that_is_not_there_says_which_are(adapter: Path) -> None:
    with pytest.raises(InputError, match=r"has no adapter 'other'.*It has: default"):
        merger(adapter, peft_config={"adapter_names": ["default", "other"]}).check_compatibility()
    with pytest.raises(ConfigError, match="names of sub-folders"):
        merger(adapter, peft_config={"adapter_names": ["../spoilt"]})


def test_an_adapter_in_a_sub_folder_is_pointed_out(trained: SimpleNamespace, tmp_path: Path) -> None:
    """PEFT saves an adapter that has a name into a folder of that name."""
    for name in ("arabic", "english"):
        shutil.copytree(trained.adapter, tmp_path / "saved" / name)
    with pytest.raises(InputError) as refusal:
        merger(tmp_path / "saved").check_compatibility()
    (problem,) = refusal.value.problems
    assert "holds no model, but the adapters 'arabic', 'english' in sub-folders" in problem.message
    assert "Set peft_config.adapter_names: [arabic]." in problem.message
    merger(tmp_path / "saved", peft_config={"adapter_names": ["arabic"]}).check_compatibility()

    shutil.copy(trained.base / "model.safetensors", tmp_path / "saved")
    merger(tmp_path / "saved").check_compatibility()


def test_a_whole_model_with_the_config_of_its_adapter_is_pointed_out(trained: SimpleNamespace, tmp_path: Path) -> None:
    """As a model that was folded and saved over its adapter leaves it."""
    shutil.copytree(trained.base, tmp_path / "whole")
    shutil.copy(trained.adapter / "adapter_config.json", tmp_path / "whole")
    with pytest.raises(InputError) as refusal:
        merger(tmp_path / "whole").check_compatibility()
    (problem,) = refusal.value.problems
    assert problem.message == (
        "has adapter_config.json and no adapter_model.safetensors, but model.safetensors. "
        "If that is the whole model, remove adapter_config.json, which is left of its adapter."
    )


def test_a_base_with_adapters_in_sub_folders_is_the_base(trained: SimpleNamespace, tmp_path: Path) -> None:
    """As trainers leave them: the base that the adapter names is not opened as that adapter again."""
    shutil.copytree(trained.base, tmp_path / "whole")
    shutil.copytree(trained.adapter, tmp_path / "whole" / "arabic")
    change(tmp_path / "whole" / "arabic", base_model_name_or_path=str(tmp_path / "whole"))
    named = {"peft_config": {"adapter_names": ["arabic"]}}
    for more in ({}, {"base_model": str(tmp_path / "whole")}):
        opened = merger(tmp_path / "whole", **named, **more).load_models()
        assert opened["whole"].changes
        assert not any(one.changes for name, one in opened.items() if name != "whole")


def test_a_base_that_is_a_merge_is_told(trained: SimpleNamespace) -> None:
    inner = {"strategy": "weighted", "models": [{"path": str(trained.base)}]}
    with pytest.raises(InputError, match=r"soup: is a merge, and adapters are folded into models alone. Publish it"):
        merger(trained.adapter, merges={"soup": inner}, peft_config={"base_model_path": "soup"}).check_compatibility()
    said = merger(trained.adapter, merges={"soup": inner}, base_model="soup").check_compatibility()
    (warning,) = [problem for problem in said if "and not into base_model, which is a merge" in problem.message]
    assert warning.severity == "warning"


def test_an_adapter_in_several_files_says_how_to_join_them(trained: SimpleNamespace, tmp_path: Path) -> None:
    shutil.copytree(trained.adapter, tmp_path / "parts")
    file = tmp_path / "parts" / "adapter_model.safetensors"
    for number in (1, 2):
        shutil.copy(file, file.with_name(f"adapter_model-0000{number}-of-00002.safetensors"))
    file.unlink()
    with pytest.raises(
        InputError, match=r"in 2 files \(adapter_model-00001-of-00002.safetensors\), and PEFT reads one"
    ):
        merger(tmp_path / "parts").check_compatibility()


def test_options_that_contradict(trained: SimpleNamespace, tmp_path: Path) -> None:
    with pytest.raises(ModelCompatibilityError, match="contradicts merge_adapters: false"):
        merger(trained.adapter, options={"preserve_base_model": True}).check_compatibility()
    with pytest.raises(ModelCompatibilityError, match=r"options.merge_method: is of use to adapters alone"):
        merger(trained.base, options={"merge_method": "svd"}).check_compatibility()
    with pytest.raises(ModelCompatibilityError, match=r"options.rank: says how adapters are merged into an adapter"):
        merger(trained.adapter, options={"rank": 4}).check_compatibility()
    with pytest.raises(ConfigError, match="Give the same path, or one of them"):
        merger(trained.adapter, base_model=str(trained.base), peft_config={"base_model_path": str(tmp_path)})
