"""Merges of models whose tensors have other names: as those of the plain models, bit for bit."""

import json
import subprocess
import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from conftest import random_tensors, write_model
from inputs.tiny_models import load
from modelmerger import (
    MergeConfig,
    ModelCompatibilityError,
    ModelMerger,
    check_model_compatibility,
    merge,
    merge_tensors,
    verify,
)
from modelmerger_plugins.names import materialise_model
from safetensors.torch import load_file, save_file

Tensors = dict[str, torch.Tensor]
Rename = Callable[[str], str]


def rewrite(directory: Path, change: Callable[[Tensors], Mapping[str, torch.Tensor]]) -> None:
    file = directory / "model.safetensors"
    save_file(dict(change(load_file(file))), file, metadata={"format": "pt"})


def rename(directory: Path, new: Rename) -> None:
    rewrite(directory, lambda tensors: {new(name): tensor for name, tensor in tensors.items()})


def merged(config: Mapping[str, Any], output: Path) -> tuple[Tensors, list[str]]:
    """The merged tensors, and the notes about names."""
    report = merge(MergeConfig(**{**config, "output_path": str(output)}))
    notes = [str(note) for note in report.notes if note.severity == "note" and "names of" in note.message]
    verify(output)
    return load_file(output / "model.safetensors"), notes


def assert_same(one: Tensors, other: Tensors) -> None:
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


def front(part: str) -> Rename:
    return lambda name: f"{part}.{name}"


def compiled_layers(name: str) -> str:
    return name.replace(".layers.0.", ".layers.0._orig_mod.").replace(".layers.1.", ".layers.1._orig_mod.")


def half(name: str) -> str:
    return f"_orig_mod.{name}" if "layers" in name else name


def checkpointed(name: str) -> str:
    return "_fsdp_wrapped_module." + name.replace("mlp.", "_fsdp_wrapped_module.mlp._checkpoint_wrapped_module.")


WRAPPED: dict[str, Rename] = {
    "compiled": front("_orig_mod"),
    "parallel": front("module"),
    "peft": front("base_model.model"),
    "nested": front("module._orig_mod"),
    "layers": compiled_layers,
    "half": half,
    "fsdp": checkpointed,
    "half parallel": lambda name: "module." + name if "layers.0" in name else name,
}
ONE_OF_TWO = [(WRAPPED[kind], who) for kind in ("compiled", "half") for who in "ab"]


@pytest.mark.parametrize(("new", "who"), [(new, "both") for new in WRAPPED.values()] + ONE_OF_TWO)
def test_wrappers_are_taken_off_with_one_note_a_model(
    models: SimpleNamespace, config: dict[str, Any], new: Rename, who: str
) -> None:
    plain, notes = merged(config, models.folder / "plain")
    assert notes == []
    wrapped = ("a", "b") if who == "both" else (who,)
    for name in wrapped:
        rename(models.folder / name, new)
    result, notes = merged(config, models.output)
    assert_same(result, plain)
    assert len(notes) == len(wrapped)
    assert all(str(models.folder / name) in note for name, note in zip(wrapped, notes, strict=True))
    check_model_compatibility([{"path": str(models.a)}, {"path": str(models.b)}])


def parallel_layers(name: str) -> str:
    return name.replace(".layers.0.", ".layers.0.module.")


def parallel_parts(name: str) -> str:
    return name.replace(".weight", ".module.weight")


@pytest.mark.parametrize("who", ["a", "b", "both"])
@pytest.mark.parametrize("new", [parallel_layers, parallel_parts])
def test_layers_in_data_parallelism_one_by_one(
    models: SimpleNamespace, config: dict[str, Any], new: Rename, who: str
) -> None:
    for name in ("a", "b"):
        edit_config(models.folder / name, architectures=["LlamaForCausalLM"])
    plain, _ = merged(config, models.folder / "plain")
    wrapped = ("a", "b") if who == "both" else (who,)
    for name in wrapped:
        rename(models.folder / name, new)
    result, notes = merged(config, models.output)
    assert_same(result, plain)
    assert len(notes) == len(wrapped)
    assert all("'module.', which DistributedDataParallel or DeepSpeed writes" in note for note in notes)


def edit_config(directory: Path, **keys: object) -> None:
    file = directory / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **keys}))


@pytest.mark.parametrize(
    "keys", [{"model_type": "levit", "architectures": ["LevitModel"]}, {"architectures": ["OwnModel"]}, {}]
)
def test_a_module_that_may_be_the_models_own_stays(
    models: SimpleNamespace, config: dict[str, Any], keys: dict[str, Any]
) -> None:
    for name in ("a", "b"):
        edit_config(models.folder / name, **keys)
        rename(models.folder / name, parallel_layers)
    result, notes = merged({**config, "options": {"check_loading": False}}, models.output)
    assert result.keys() == load_file(models.a / "model.safetensors").keys()
    assert notes == []


def opacus_layers(name: str) -> str:
    return name.replace(".layers.0.", ".layers.0._module.")


@pytest.mark.parametrize("who", ["a", "b"])
@pytest.mark.parametrize("new", [parallel_layers, parallel_parts, opacus_layers])
def test_an_unknown_class_is_compared_with_the_other_model(
    models: SimpleNamespace, config: dict[str, Any], who: str, new: Rename
) -> None:
    plain, _ = merged(config, models.folder / "plain")
    rename(models.folder / who, new)
    assert_same(merged(config, models.output)[0], plain)


@pytest.mark.parametrize(("line", "own"), [("self.layers = layers", False), ("self.module = module", True)])
def test_an_own_class_is_known_by_its_source(
    models: SimpleNamespace, config: dict[str, Any], line: str, own: bool
) -> None:
    for name in ("a", "b"):
        edit_config(models.folder / name, architectures=["OwnModel"])
        (models.folder / name / "modeling_own.py").write_text(f"class OwnModel(Module):\n    {line}\n")
        rename(models.folder / name, parallel_layers)
    result, _ = merged({**config, "options": {"check_loading": False}}, models.output)
    assert any(".module." in name for name in result) is own


@pytest.mark.parametrize("who", ["a", "b", "both"])
@pytest.mark.parametrize("part", ["model", "net", "student.model", "model.base_model.model", "model.module"])
def test_a_module_around_a_model_of_transformers_is_taken_off(
    models: SimpleNamespace, config: dict[str, Any], who: str, part: str
) -> None:
    """As training frameworks save it, with the head."""
    for name in ("a", "b"):
        directory = models.folder / name
        edit_config(directory, architectures=["LlamaForCausalLM"], tie_word_embeddings=False)
        tensors = load_file(directory / "model.safetensors")
        head = {"lm_head.weight": tensors["model.embed_tokens.weight"] * 2}
        save_file(tensors | head, directory / "model.safetensors", metadata={"format": "pt"})
    plain, _ = merged(config, models.folder / "plain")
    for name in ("a", "b") if who == "both" else (who,):
        rename(models.folder / name, front(part))
    assert_same(merged(config, models.output)[0], plain)


UNKNOWN = {
    "a class of the family": {"architectures": ["TeamsLlama"]},
    "no class": {},
    "another type": {"architectures": ["TeamsModel"], "model_type": "teams_model"},
}


@pytest.mark.parametrize("kind", UNKNOWN)
@pytest.mark.parametrize("head", [True, False])
@pytest.mark.parametrize("part", ["net", "student.net", "wrapped_model"])
def test_a_module_around_both_models_of_a_class_that_nobody_knows_is_taken_off(
    models: SimpleNamespace, config: dict[str, Any], kind: str, head: bool, part: str
) -> None:
    for name in ("a", "b"):
        edit_config(models.folder / name, **UNKNOWN[kind])
        if head:
            rewrite(models.folder / name, lambda t: t | {"lm_head.weight": t["model.embed_tokens.weight"] * 2})
    plain, _ = merged(config, models.folder / "plain")
    for name in ("a", "b"):
        rename(models.folder / name, front(part))
    result, notes = merged(config, models.output)
    assert_same(result, plain)
    assert len(notes) == 2


@pytest.mark.parametrize("told", ["source", "auto_map", "no config", "other names"])
def test_what_code_beside_the_model_or_nothing_at_all_says_stays(
    models: SimpleNamespace, config: dict[str, Any], told: str
) -> None:
    for name in ("a", "b"):
        edit_config(models.folder / name, architectures=["TeamsLlama"])
        if told == "source":
            (models.folder / name / "modeling_teams.py").write_text("class Base(Module):\n    pass\n")
        elif told == "auto_map":
            edit_config(models.folder / name, auto_map={"AutoModel": "modeling_teams.TeamsLlama"})
        elif told == "no config":
            (models.folder / name / "config.json").unlink()
        else:
            rename(models.folder / name, lambda old: old.replace("model.", "trunk."))
        rename(models.folder / name, front("net"))
    result, _ = merged(config, models.output)
    assert all(name.startswith("net.") for name in result)


@pytest.mark.parametrize("part", ["model", "transformer"])
def test_what_the_family_has_itself_stays_in_front(models: SimpleNamespace, config: dict[str, Any], part: str) -> None:
    """GPT-2 has `transformer.` in front of all names but the head's, which is tied."""
    kept = {"model": ("llama", "LlamaForCausalLM"), "transformer": ("gpt2", "GPT2LMHeadModel")}[part]
    for name in ("a", "b"):
        edit_config(models.folder / name, model_type=kept[0], architectures=[kept[1]])
        rename(models.folder / name, lambda old: part + "." + old.removeprefix("model."))
    result, _ = merged({**config, "options": {"check_loading": False}}, models.output)
    assert all(name.startswith(f"{part}.") for name in result)


def test_the_note_names_the_wrapper_and_who_writes_it(models: SimpleNamespace, config: dict[str, Any]) -> None:
    rename(models.b, front("module._orig_mod"))
    _, (note,) = merged(config, models.output)
    assert note == (
        f"{models.b}: '_orig_mod.', which torch.compile writes, and 'module.', which DistributedDataParallel or "
        "DeepSpeed writes, are taken off 7 of 7 names of tensors."
    )


@pytest.mark.parametrize("who", ["base", "a", "base a"])
def test_a_wrapped_base_of_task_arithmetic_and_one_of_three_models(
    models: SimpleNamespace, config: dict[str, Any], who: str
) -> None:
    arithmetic = {**config, "strategy": "task_arithmetic", "base_model": str(models.base)}
    three = {**config, "models": [*config["models"], {"path": str(models.base), "weight": 1.0}]}
    plain = [merged(arithmetic, models.folder / "plain")[0], merged(three, models.folder / "three")[0]]
    for name in who.split():
        rename(models.folder / name, front("_orig_mod"))
    for i, kind in enumerate((arithmetic, three)):
        assert_same(merged(kind, models.folder / f"merged {i}")[0], plain[i])


def test_wrapped_shards_and_wrapped_pickled_files(models: SimpleNamespace, config: dict[str, Any]) -> None:
    plain, _ = merged(config, models.folder / "plain")
    (models.a / "model.safetensors").unlink()
    write_model(models.a, {f"module.{name}": tensor for name, tensor in models.tensors["a"].items()}, shards=3)
    (models.b / "model.safetensors").unlink()
    torch.save({f"_orig_mod.{n}": t for n, t in models.tensors["b"].items()}, models.b / "pytorch_model.bin")
    options = {"allow_pickle": True}
    result, notes = merged({**config, "options": options}, models.output)
    assert_same(result, plain)
    assert len(notes) == 2


def test_what_is_merged_of_wrapped_models_is_loaded_by_transformers(untied: SimpleNamespace, tmp_path: Path) -> None:
    import shutil

    for name in ("a", "b"):
        shutil.copytree(getattr(untied, name), tmp_path / name)
        rename(tmp_path / name, compiled_layers if name == "a" else front("_orig_mod"))
    sources = [{"path": str(tmp_path / name)} for name in ("a", "b")]
    merge(MergeConfig(strategy="weighted", models=sources, output_path=str(tmp_path / "merged")))
    model, said = load(tmp_path / "merged")
    assert said == load(untied.a)[1]
    a, b = (load_file(getattr(untied, name) / "model.safetensors") for name in ("a", "b"))
    for name, parameter in model.state_dict().items():
        torch.testing.assert_close(parameter, (a[name].double() * 0.5 + b[name].double() * 0.5).float())


@pytest.mark.parametrize("donor", ["without", "with"])
def test_a_model_with_its_prefix_and_one_without(models: SimpleNamespace, config: dict[str, Any], donor: str) -> None:
    """As GPT-2 on the Hub, which has no `transformer.`; the names are the donor's."""
    plain, _ = merged(config, models.folder / "plain")
    rename(models.a if donor == "without" else models.b, lambda name: name.removeprefix("model."))
    result, (note,) = merged(config, models.output)
    new = (lambda name: name.removeprefix("model.")) if donor == "without" else str
    assert_same(result, {new(name): tensor for name, tensor in plain.items()})
    said = "without 'model.'" if donor == "without" else "with 'model.' in front"
    assert note == f"{models.b}: 7 tensors under the names of 'a': {said}."


def test_a_head_that_one_model_has_is_a_difference_and_no_other(
    models: SimpleNamespace, config: dict[str, Any]
) -> None:
    rewrite(models.a, lambda tensors: tensors | {"classifier.weight": torch.ones(2, 16, dtype=torch.bfloat16)})
    rename(models.b, lambda name: name.removeprefix("model."))
    with pytest.raises(ModelCompatibilityError) as caught:
        merge(MergeConfig(**config))
    (problem,) = caught.value.problems
    assert problem.tensor == "classifier.weight"
    result, _ = merged({**config, "options": {"missing_tensors": "donor"}}, models.output)
    assert result.keys() == models.tensors["a"].keys() | {"classifier.weight"}
    assert torch.equal(result["classifier.weight"], torch.ones(2, 16, dtype=torch.bfloat16))


def test_a_resized_vocabulary_behind_another_prefix_is_told_as_one(
    models: SimpleNamespace, config: dict[str, Any]
) -> None:
    def changed(tensors: Tensors) -> Tensors:
        rows = torch.zeros(8, 16, dtype=torch.bfloat16)
        tensors["model.embed_tokens.weight"] = torch.cat([tensors["model.embed_tokens.weight"], rows])
        return {f"_orig_mod.{name.removeprefix('model.')}": tensor for name, tensor in tensors.items()}

    rewrite(models.b, changed)
    with pytest.raises(ModelCompatibilityError, match="the vocabulary was resized: 32 rows here, 24 in") as caught:
        merge(MergeConfig(**config))
    assert len(caught.value.problems) == 1


def only_problem(config: Mapping[str, Any]) -> str:
    with pytest.raises(ModelCompatibilityError) as caught:
        merge(MergeConfig(**config))
    (problem,) = caught.value.problems
    assert len(str(problem)) <= 300
    return str(problem)


def test_names_that_cannot_go_without_the_wrapper_are_one_error(
    models: SimpleNamespace, config: dict[str, Any]
) -> None:
    rewrite(models.b, lambda tensors: tensors | {f"_orig_mod.{name}": t.clone() for name, t in tensors.items()})
    assert "and _orig_mod.model" in (said := only_problem(config))
    assert "are one without '_orig_mod.', which torch.compile writes. Save the model without its wrapper." in said


def test_the_state_dict_of_a_peft_model_is_one_error(models: SimpleNamespace, config: dict[str, Any]) -> None:
    def changed(tensors: Tensors) -> Tensors:
        made = {f"base_model.model.{name.replace('mlp.', 'mlp.base_layer.')}": t for name, t in tensors.items()}
        return made | {"base_model.model.model.layers.0.mlp.lora_A.default.weight": torch.ones(2, 16)}

    rewrite(models.b, changed)
    assert "Save what merge_and_unload() returns" in only_problem(config)


def test_names_that_would_fit_twice_are_one_error(models: SimpleNamespace, config: dict[str, Any]) -> None:
    def twice(tensors: Tensors) -> Tensors:
        return {f"{tower}.{name}": t.clone() for tower in ("query", "answer") for name, t in tensors.items()}

    rewrite(models.a, twice)
    said = only_problem(config)
    assert "with 'query.' in front" in said
    assert "with 'answer.' in front" in said


@pytest.mark.parametrize("donor", ["fused", "single"])
def test_experts_in_one_tensor_and_one_by_one_are_one_error(
    models: SimpleNamespace, config: dict[str, Any], donor: str
) -> None:
    def fused(tensors: Tensors) -> Tensors:
        return tensors | {f"model.layers.{i}.mlp.experts.gate_up_proj": torch.ones(2, 8, 16) for i in range(2)}

    def single(tensors: Tensors) -> Tensors:
        names = [
            f"model.layers.{i}.mlp.experts.{j}.{w}.weight" for i in range(2) for j in range(2) for w in ("w1", "w3")
        ]
        return tensors | {name: torch.ones(4, 16) for name in names}

    for name, change in zip("ab", (fused, single) if donor == "fused" else (single, fused), strict=True):
        rewrite(models.folder / name, change)
    said = only_problem(config)
    assert "model.layers.0.mlp.experts.gate_up_proj" in said
    assert "model.layers.0.mlp.experts.0.w1.weight" in said
    assert f"'{'a' if donor == 'fused' else 'b'}' with save_pretrained" in said


def test_old_and_new_names_of_layer_norms(models: SimpleNamespace, config: dict[str, Any]) -> None:
    norms = {f"encoder.{i}.LayerNorm.{part}": (16,) for i in range(2) for part in ("weight", "bias")}
    for seed, name in enumerate("ab"):
        write_model(models.folder / name, random_tensors(seed, shapes=norms | {"embeddings.weight": (24, 16)}))
    plain, _ = merged(config, models.folder / "plain")
    old = {"weight": "gamma", "bias": "beta"}
    rename(
        models.b, lambda name: ".".join([*name.split(".")[:-1], old[name.split(".")[-1]]]) if "Norm" in name else name
    )
    result, (note,) = merged(config, models.output)
    assert_same(result, plain)
    assert "4 tensors under the names of 'a'" in note


def test_a_killed_or_second_merge_has_another_digest_where_names_are_others(
    models: SimpleNamespace, config: dict[str, Any]
) -> None:
    before = ModelMerger(MergeConfig(**config)).plan()
    rename(models.b, front("module"))
    assert ModelMerger(MergeConfig(**config)).plan().digest != before.digest


def test_checking_other_names_imports_nothing_heavy(models: SimpleNamespace, config: dict[str, Any]) -> None:
    rename(models.a, front("_orig_mod"))
    rename(models.b, lambda name: name.removeprefix("model."))
    file = models.folder / "merge.json"
    file.write_text(json.dumps(config))
    code = (
        "import sys; from modelmerger.cli.process import main; "
        "print([main([c, sys.argv[1]]) for c in ('check', 'plan')], 'torch' in sys.modules, 'transformers' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code, file], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.splitlines()[-1] == "[0, 0] False False"


def test_tensors_in_memory_keep_the_names_that_they_were_given_by(models: SimpleNamespace) -> None:
    a, b = models.tensors["a"], models.tensors["b"]
    plain = merge_tensors("weighted", [a, b])
    wrapped = {f"_orig_mod.{name}": tensor for name, tensor in a.items()}
    assert_same(merge_tensors("weighted", [wrapped, b]), {f"_orig_mod.{name}": t for name, t in plain.items()})
    assert_same(merge_tensors("weighted", [b, wrapped], weights=[1.0, 1.0]), plain)
    out = {name: torch.zeros_like(tensor) for name, tensor in wrapped.items()}
    merge_tensors("weighted", [wrapped, wrapped], out=out)
    assert_same(out, wrapped)


def test_mappings_in_memory_are_published_without_wrappers(models: SimpleNamespace, config: dict[str, Any]) -> None:
    plain, _ = merged(config, models.folder / "plain")
    state = {f"module.{name}": tensor for name, tensor in models.tensors["a"].items()}
    live = {**config, "models": [{"path": state, "weight": 0.6}, config["models"][1]]}
    assert_same(merged(live, models.output)[0], plain)


@pytest.mark.parametrize("new", [front("_orig_mod"), lambda name: name.removeprefix("model.")])
def test_a_tied_head_is_known_behind_other_names(models: SimpleNamespace, config: dict[str, Any], new: Rename) -> None:
    """`b` leaves its head out, so its embedding stands in; in `a` the head has a prefix too."""
    head = torch.ones(24, 16, dtype=torch.bfloat16)
    rewrite(models.a, lambda tensors: tensors | {"tower.lm_head.weight": head})
    rename(models.b, new)
    result, _ = merged(config, models.output)
    embedding = models.tensors["b"]["model.embed_tokens.weight"]
    expected = (0.6 * head.double() + 0.4 * embedding.double()).bfloat16()
    assert torch.equal(result["tower.lm_head.weight"], expected)


def inner(where: str, models: SimpleNamespace, config: dict[str, Any], options: Any) -> dict[str, Any]:
    """The merge of the config as an inner one: of half of each, and then a quarter of it beside the base."""
    within = {key: config[key] for key in ("strategy", "models")} | {"options": options}
    if where == "model":
        return {**config, "models": [{"merge": within, "name": "soup"}, {"path": str(models.base)}]}
    if where == "named":
        named = {"models": [{"path": "soup"}, {"path": str(models.base)}], "merges": {"soup": within}}
        return {**config, **named}
    if where == "deeper":
        deeper = {"strategy": "weighted", "models": [{"merge": within}, {"path": str(models.base)}]}
        return {**config, "models": [{"merge": deeper, "name": "soup"}, {"path": str(models.base)}]}
    return {
        **config,
        "strategy": "task_arithmetic",
        "models": [{"path": str(models.b)}],
        "base_model": {"merge": within},
    }


@pytest.mark.parametrize("where", ["model", "named", "deeper", "base"])
@pytest.mark.parametrize(
    ("new", "who"),
    [(front("_orig_mod"), "a"), (compiled_layers, "b"), (front("transformer"), "a"), (front("transformer"), "b")],
)
def test_models_of_a_merge_within_the_merge_are_named_as_those_of_the_outermost(
    models: SimpleNamespace, config: dict[str, Any], where: str, new: Rename, who: str
) -> None:
    plain, notes = merged(inner(where, models, config, {}), models.folder / "plain")
    assert notes == []
    rename(getattr(models, who), new)

    found, _ = merged(inner(where, models, config, {}), models.folder / "renamed")

    if who == "a" and new("x") == "transformer.x":  # the inner donor's own names
        found = {name.removeprefix("transformer."): tensor for name, tensor in found.items()}
    assert_same(found, plain)


def test_what_does_not_go_together_within_a_merge_is_said(models: SimpleNamespace, config: dict[str, Any]) -> None:
    tensors = load_file(models.b / "model.safetensors")
    save_file(
        tensors | {f"_orig_mod.{name}": tensor.clone() for name, tensor in tensors.items()},
        models.b / "model.safetensors",
    )
    with pytest.raises(ModelCompatibilityError, match=r"which are one without '_orig_mod\.'") as refusal:
        merge(MergeConfig(**inner("deeper", models, config, {})))
    assert [problem.where for problem in refusal.value.problems] == [str(models.b)]


def test_a_wrapped_model_is_validated_as_what_is_in_it(models: SimpleNamespace, tmp_path: Path) -> None:
    """transformers would load random numbers in its place."""
    wrapped = write_model(tmp_path / "wrapped", {f"_orig_mod.{n}": t for n, t in models.tensors["a"].items()})
    target = tmp_path / "plain"

    plain = partial(materialise_model, settings=None, merged=False)
    assert plain(models.a, target=target) is None
    assert plain(tmp_path / "absent", target=target) is None
    assert plain(wrapped, target=None) == wrapped
    assert not target.exists()
    assert plain(wrapped, target=target) == target
    found = load_file(target / "model.safetensors")
    assert found.keys() == models.tensors["a"].keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in models.tensors["a"].items())
