"""Recipes as people write them, from the file to the numbers, against references in numpy."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from modelmerger import MergeConfig, MergeReport, merge, verify
from safetensors.numpy import load_file, save_file

Tensors = dict[str, np.ndarray]
HIDDEN, LAYERS = 4, 4
MATRICES = {
    "self_attn.q_proj": (4, 4),
    "self_attn.v_proj": (4, 4),
    "self_attn.o_proj": (4, 4),
    "mlp.up_proj": (6, 4),
    "mlp.down_proj": (4, 6),
}
OUTSIDE = ("model.embed_tokens.weight", "model.norm.weight", "lm_head.weight")
CONFIG = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": HIDDEN, "num_hidden_layers": LAYERS,
    "num_attention_heads": 2, "vocab_size": 8, "torch_dtype": "float32", "tie_word_embeddings": False,
}  # fmt: skip
UNLOADED = ("--set", "options.check_loading=false")
"""Models without all that transformers wants of a Llama."""
TOKENIZER = {
    "model": {"type": "WordLevel", "vocab": {f"t{i}": i for i in range(8)}, "unk_token": "t0"},
    "added_tokens": [],
}


def shapes() -> dict[str, tuple[int, ...]]:
    found: dict[str, tuple[int, ...]] = {name: (HIDDEN,) if "norm" in name else (8, HIDDEN) for name in OUTSIDE}
    for layer in range(LAYERS):
        found |= {f"model.layers.{layer}.{name}.weight": shape for name, shape in MATRICES.items()}
        found[f"model.layers.{layer}.input_layernorm.weight"] = (HIDDEN,)
    return found


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("library")
    random = np.random.default_rng(7)
    base = {name: random.standard_normal(shape).astype(np.float32) for name, shape in shapes().items()}
    for model in ("base", "a", "b", "c", "d"):
        (place / model).mkdir()
        tuned = {
            n: t + (0 if model == "base" else 0.3 * random.standard_normal(t.shape).astype(np.float32))
            for n, t in base.items()
        }
        save_file(
            {name: tensor.astype(np.float32) for name, tensor in tuned.items()}, place / model / "model.safetensors"
        )
        (place / model / "config.json").write_text(json.dumps(CONFIG))
        (place / model / "tokenizer.json").write_text(json.dumps(TOKENIZER))
        (place / model / "tokenizer_config.json").write_text(json.dumps({"own": model}))
    for adapter, module in (("lora1", "q_proj"), ("lora2", "q_proj"), ("lora3", "v_proj")):
        (place / adapter).mkdir()
        told = {
            "peft_type": "LORA",
            "r": 1,
            "lora_alpha": 2,
            "target_modules": [module],
            "task_type": "CAUSAL_LM",
            "bias": "none",
        }
        (place / adapter / "adapter_config.json").write_text(json.dumps(told))
        start = "base_model.model.model.layers.{}.self_attn." + module
        factors = {}
        for layer in range(LAYERS):
            factors[f"{start.format(layer)}.lora_A.weight"] = random.standard_normal((1, HIDDEN)).astype(np.float32)
            factors[f"{start.format(layer)}.lora_B.weight"] = random.standard_normal((HIDDEN, 1)).astype(np.float32)
        save_file(factors, place / adapter / "adapter_model.safetensors")
    return place


@pytest.fixture
def place(library: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    for entry in library.iterdir():
        (tmp_path / entry.name).symlink_to(entry)
    monkeypatch.chdir(tmp_path)
    yield tmp_path


@pytest.fixture
def of(place: Path) -> Callable[[str], Tensors]:
    """The tensors of a model, in float64."""
    return lambda name: {k: v.astype(np.float64) for k, v in load_file(place / name / "model.safetensors").items()}


def made(recipe: str, output: str = "out", **read: Any) -> tuple[Tensors, MergeReport]:
    """What is written, and the report; the config that is imported gives the same bytes."""
    Path("recipe.yml").write_text(recipe)
    config = MergeConfig.from_file("recipe.yml", read=read or None)
    config.output_path = output
    config.options = {**config.options, "check_loading": False}
    report = merge(config)
    assert verify(output) is not None
    return {k: v.astype(np.float64) for k, v in load_file(f"{output}/model.safetensors").items()}, report


def written(output: str = "out") -> dict[str, Any]:
    return json.loads(Path(output, "config.json").read_text())


def t_of(name: str, values: list[float], outside: float | None = None) -> float:
    """mergekit's value of a gradient for a tensor: at i/(n − 1) in the layers, the first elsewhere."""
    parts = name.split(".")
    if not parts[2:] or not parts[2].isdigit():
        return values[0] if outside is None else outside
    return float(np.interp(int(parts[2]) / (LAYERS - 1) * (len(values) - 1), range(len(values)), values))


def arc(t: float, u: np.ndarray, v: np.ndarray, parallel: float) -> np.ndarray:
    cosine = float((u * v).sum() / np.linalg.norm(u) / np.linalg.norm(v))
    if abs(cosine) > parallel:
        return (1 - t) * u + t * v
    angle = np.arccos(cosine)
    return (np.sin((1 - t) * angle) * u + np.sin(t * angle) * v) / np.sin(angle)


def close(found: Tensors, wanted: Tensors, tolerance: float = 2e-6) -> None:
    assert found.keys() == wanted.keys()
    for name, tensor in wanted.items():
        np.testing.assert_allclose(
            found[name], tensor, rtol=0, atol=tolerance * max(1.0, abs(tensor).max()), err_msg=name
        )


def test_slerp_of_a_slice_with_filters(of: Callable[[str], Tensors]) -> None:
    found, _ = made("""
slices:
  - sources:
      - {model: ./a, layer_range: [0, 4]}
      - {model: ./b, layer_range: [0, 4]}
merge_method: slerp
base_model: ./b
parameters:
  t:
    - {filter: self_attn, value: [0, 0.5, 0.3, 0.7, 1]}
    - {filter: mlp, value: [1, 0.5, 0.7, 0.3, 0]}
    - value: 0.5
dtype: float32
""")

    def t(name: str) -> float:
        return t_of(
            name, [0, 0.5, 0.3, 0.7, 1] if "self_attn" in name else [1, 0.5, 0.7, 0.3, 0] if "mlp" in name else [0.5]
        )

    a, b = of("a"), of("b")
    close(found, {name: arc(t(name), b[name], a[name], 0.9995) for name in a})
    assert json.loads(Path("out/tokenizer_config.json").read_text())["own"] == "b"
    assert written()["num_hidden_layers"] == 4


@pytest.mark.parametrize("method", ["dare_ties", "dare_linear", "della_linear"])
def test_what_is_dropped_at_random_keeps_the_sum_of_magnitudes(method: str, of: Callable[[str], Tensors]) -> None:
    weight = 0.4
    recipe = f"merge_method: {method}\nbase_model: ./base\nmodels:\n- model: ./base\n- {{model: ./a, parameters: {{density: 0.53, weight: {weight}}}}}\ndtype: float32\n"
    found, _ = made(recipe)
    base, a = of("base"), of("a")
    for name in a:
        delta, kept = a[name] - base[name], (found[name] - base[name]) / weight
        dropped = abs(kept) < 1e-5
        assert dropped.any() or delta.size < 8, name
        np.testing.assert_allclose(abs(kept).sum(), abs(delta).sum(), rtol=1e-4, err_msg=name)
        ratio = (kept / delta)[~dropped]
        np.testing.assert_allclose(ratio, ratio.mean(), rtol=2e-3, err_msg=name)
    again, _ = made(recipe, "again")
    assert all((found[name] == again[name]).all() for name in found)


TIES = """
merge_method: ties
base_model: ./base
normalize: false
models:
  - model: ./a
    parameters: {weight: 1, density: 1}
  - model: ./b
    parameters: {weight: 0.5, density: 1}
parameters:
  lamda: 0.85
dtype: float32
"""


def ties(base: Tensors, deltas: list[tuple[float, Tensors]], scale: float, *, normalize: bool) -> Tensors:
    found = {}
    for name, own in base.items():
        weighted = np.stack([weight * (tuned[name] - own) for weight, tuned in deltas])
        elected = np.where(weighted.sum(0) >= 0, 1, -1)
        agree = np.sign(weighted) == elected
        total = (weighted * agree).sum(0)
        weights = np.array([weight for weight, _ in deltas]).reshape(-1, *[1] * own.ndim)
        divisor = (weights * agree).sum(0)
        found[name] = own + scale * np.divide(
            total, divisor if normalize else 1, out=np.zeros_like(own), where=divisor != 0
        )
    return found


def test_what_stands_in_the_wrong_place_is_not_read_unless_it_shall_be(of: Callable[[str], Tensors]) -> None:
    deltas = [(1.0, of("a")), (0.5, of("b"))]
    found, report = made(TIES)
    close(found, ties(of("base"), deltas, 1, normalize=True))
    assert [note.message for note in report.notes if note.severity == "warning" and "recipe.yml" in note.where] == [
        "'normalize' here is not read; mergekit used true. It belongs under 'parameters'",
        "'lamda' here is not read; mergekit used 1.0. Did you mean 'lambda'?",
    ]
    found, _ = made(TIES, "meant", intent=True)
    close(found, ties(of("base"), deltas, 0.85, normalize=False))


def test_strict_refuses_what_is_not_read(place: Path, command: Callable[..., SimpleNamespace]) -> None:
    (place / "recipe.yml").write_text(TIES)
    result = command("check", "recipe.yml", "--strict")
    assert (result.status, result.err.splitlines()) == (
        2,
        [
            "error: recipe.yml: normalize: 'normalize' here is not read; mergekit used true. It belongs under 'parameters'",
            "error: recipe.yml: parameters.lamda: 'lamda' here is not read; mergekit used 1.0. Did you mean 'lambda'?",
        ],
    )
    assert command("check", "recipe.yml", "--strict", "--read", "intent=true", *UNLOADED).status == 0


def test_a_soup_of_checkpoints(of: Callable[[str], Tensors]) -> None:
    models = "".join(
        f"- {{model: ./{name}, parameters: {{weight: {i}}}}}\n"
        for i, name in enumerate(("base", "a", "b", "c", "d"), 1)
    )
    found, _ = made(
        f"merge_method: linear\nbase_model: ./d\nmodels:\n{models}parameters: {{normalize: true}}\ndtype: float32\nout_dtype: float16\n"
    )
    parts = [of(name) for name in ("base", "a", "b", "c", "d")]
    exact = {name: sum((i + 1) * part[name] for i, part in enumerate(parts)) / 15 for name in parts[0]}
    close(found, {name: tensor.astype(np.float16).astype(np.float64) for name, tensor in exact.items()}, 6e-4)
    assert written()["torch_dtype"] == "float16"
    assert json.loads(Path("out/tokenizer_config.json").read_text())["own"] == "d"


def test_a_chat_vector(of: Callable[[str], Tensors]) -> None:
    found, _ = made("""
merge_method: task_arithmetic
base_model: ./base
models:
  - {model: ./a, parameters: {weight: 1.0}}
  - {model: ./b, parameters: {weight: -0.5}}
  - {model: ./c, parameters: {weight: "0.3"}}
parameters: {lambda: 0.7}
tokenizer_source: base
dtype: float32
""")
    base, a, b, c = map(of, ("base", "a", "b", "c"))
    close(
        found, {n: base[n] + 0.7 * ((a[n] - base[n]) - 0.5 * (b[n] - base[n]) + 0.3 * (c[n] - base[n])) for n in base}
    )


def test_a_filter_that_does_not_match_leaves_the_global_weight(of: Callable[[str], Tensors]) -> None:
    found, report = made("""
models:
  - model: ./a
    parameters:
      weight: [{filter: self_attn, value: 0.35}, {filter: mlp, value: 0.2}, {value: 0.25}]
  - model: ./b
    parameters: {weight: [{filter: mlp, value: 0.35}]}
  - model: ./base
    parameters: {weight: 0.3, density: 0.6}
merge_method: della_linear
base_model: ./base
parameters: {weight: 0.25, normalize: true, int8_mask: true, epsilon: 0.05, lambda: 1}
tokenizer_source: union
chat_template: chatml
dtype: float32
""")
    base, a, b = map(of, ("base", "a", "b"))

    def wanted(name: str) -> np.ndarray:
        first, second = (0.35, 0.25) if "self_attn" in name else (0.2, 0.35) if "mlp" in name else (0.25, 0.25)
        return base[name] + (first * (a[name] - base[name]) + second * (b[name] - base[name])) / (first + second)

    close(found, {name: wanted(name) for name in base})  # density is 1, so nothing is dropped
    assert "<|im_start|>" in Path("out/chat_template.jinja").read_text()
    assert "no effect in della_linear" in "".join(note.message for note in report.notes)


def test_the_form_of_mergekits_own_cards(of: Callable[[str], Tensors]) -> None:
    found, _ = made("""
base_model: ./base
dtype: float32
merge_method: ties
modules:
  default:
    slices:
    - sources:
      - {layer_range: [0, 4], model: ./a, parameters: {density: 1.0, weight: 0.25}}
      - {layer_range: [0, 4], model: ./base, parameters: {density: 0.5, weight: 0.3}}
      - {layer_range: [0, 4], model: ./b, parameters: {density: 1.0, weight: 0.45}}
parameters: {int8_mask: 0.0, normalize: 1.0}
tokenizer: {}
""")
    close(found, ties(of("base"), [(0.25, of("a")), (0.45, of("b"))], 1, normalize=True))


def test_layers_are_stacked_and_scaled(of: Callable[[str], Tensors]) -> None:
    found, _ = made("""
slices:
  - sources: [{model: ./a, layer_range: [0, 2]}]
  - sources:
      - model: ./b
        layer_range: [1, 3]
        parameters:
          scale: [{filter: o_proj, value: 0.5}, {filter: down_proj, value: 0.0}, {value: 1.0}]
  - sources: [{model: ./a, layer_range: [3, 4]}]
merge_method: passthrough
dtype: float32
""")
    a, b = of("a"), of("b")
    wanted = {name: a[name] for name in OUTSIDE}
    for number, (model, layer) in enumerate([(a, 0), (a, 1), (b, 1), (b, 2), (a, 3)]):
        for name in [name for name in model if name.startswith(f"model.layers.{layer}.")]:
            scale = 1.0 if model is a else 0.5 if "o_proj" in name else 0.0 if "down_proj" in name else 1.0
            wanted[name.replace(f".{layer}.", f".{number}.", 1)] = scale * model[name]
    close(found, wanted, 0)
    assert written()["num_hidden_layers"] == 5


def test_nuslerp_without_a_base_and_the_tokenizer_of_a_model(of: Callable[[str], Tensors]) -> None:
    found, _ = made("""
models:
  - {model: ./a, parameters: {weight: [0.1, 0.3, 0.1]}}
  - {model: ./b, parameters: {weight: [0.9, 0.7, 0.9]}}
merge_method: nuslerp
dtype: float32
tokenizer: {source: ./b}
""")
    a, b = of("a"), of("b")
    close(found, {name: arc(t_of(name, [0.9, 0.7, 0.9]), a[name], b[name], 1 - 1e-12) for name in a})
    assert json.loads(Path("out/tokenizer_config.json").read_text())["own"] == "b"


STEPS = """
name: pair.one
merge_method: linear
models: [{model: ./a}, {model: ./b}]
parameters: {weight: 0.5}
dtype: float32
---
name: bent
merge_method: slerp
base_model: pair.one
models: [{model: ./c}]
parameters: {t: [0, 0.5]}
dtype: float32
---
merge_method: passthrough
slices:
  - sources: [{model: pair.one, layer_range: [0, 2]}]
  - sources: [{model: bent, layer_range: [2, 4]}]
dtype: float32
"""


def test_several_documents_are_one_merge_that_writes_nothing_in_between(
    of: Callable[[str], Tensors], place: Path
) -> None:
    before = set(place.iterdir())
    found, _ = made(STEPS)
    a, b, c = map(of, "abc")
    pair = {name: (a[name] + b[name]) / 2 for name in a}
    bent = {name: arc(t_of(name, [0, 0.5]), pair[name], c[name], 0.9995) for name in a}
    close(found, {name: (pair if ".0." in name or ".1." in name or "embed" in name else bent)[name] for name in a})
    assert {entry.name for entry in set(place.iterdir()) - before} == {"recipe.yml", "out"}
    manifest = json.loads((place / "out/modelmerger.json").read_text())
    assert list(manifest["config"]["merges"]) == ["pair-one", "bent"]


def test_adapters_on_references(of: Callable[[str], Tensors], place: Path) -> None:
    found, report = made("""
models:
  - model: ./base+./lora1
  - model: ./base+./lora2
  - model: ./base+./lora3
    parameters: {weight: 2.0}
merge_method: model_stock
base_model: ./base
parameters: {filter_wise: false}
dtype: float32
""")
    base = of("base")
    wanted = dict(base)
    for layer in range(LAYERS):
        name = f"model.layers.{layer}.self_attn.q_proj"
        factors = [load_file(place / lora / "adapter_model.safetensors") for lora in ("lora1", "lora2")]
        key = f"base_model.model.{name}."
        u, v = (2 * f[f"{key}lora_B.weight"].astype(np.float64) @ f[f"{key}lora_A.weight"] for f in factors)
        cosine = max(0.0, float((u * v).sum() / np.linalg.norm(u) / np.linalg.norm(v)) / 3)
        wanted[f"{name}.weight"] = base[f"{name}.weight"] + cosine / (1 + 2 * cosine) * (u + v)
    close(found, wanted)
    assert any("model_stock does not read 'weight'" in note.message for note in report.notes)


@pytest.mark.parametrize("recipe", [TIES, STEPS], ids=["ties", "three steps"])
def test_the_imported_config_gives_the_same_bytes(
    place: Path, command: Callable[..., SimpleNamespace], recipe: str
) -> None:
    (place / "recipe.yml").write_text(recipe)
    assert command("import-recipe", "recipe.yml", "--output", "ours.yaml").out == "wrote ours.yaml\n"
    again = command("import-recipe", "recipe.yml", "--output", "ours.yaml")
    assert (again.status, again.err) == (4, "error: ours.yaml: exists already. Give another name, or remove it\n")
    text = (place / "ours.yaml").read_text()
    assert text.startswith("# From mergekit's recipe recipe.yml.\n# warning: ")
    assert command("import-recipe", "recipe.yml").out == text
    for config, output in (("recipe.yml", "theirs"), ("ours.yaml", "ours")):
        assert command("merge", config, "--output", output, *UNLOADED).status == 0
    for name in ("model.safetensors", "config.json"):
        assert (place / "theirs" / name).read_bytes() == (place / "ours" / name).read_bytes()
    not_one = command("import-recipe", "ours.yaml")
    assert (not_one.status, not_one.err) == (
        2,
        "error: ours.yaml: is no recipe of mergekit. It can be merged as it is\n",
    )


def test_a_filter_that_matches_nothing_is_a_warning(place: Path, command: Callable[..., SimpleNamespace]) -> None:
    (place / "recipe.yml").write_text(
        "merge_method: slerp\nbase_model: ./b\nmodels: [{model: ./a}]\nparameters: {t: [{filter: atention, value: 1}, {value: 0}]}\n"
    )
    result = command("check", "recipe.yml", *UNLOADED)
    assert result.status == 0
    assert "warning: options.interpolation_factor: the pattern '*atention*' matches no tensor." in result.err


def test_vocabularies_that_differ_are_said(place: Path, command: Callable[..., SimpleNamespace]) -> None:
    other = place / "other"
    other.mkdir()
    for file in (place / "a").iterdir():
        (other / file.name).write_bytes(file.read_bytes())
    vocabulary = {f"t{7 - i}": i for i in range(8)}
    (other / "tokenizer.json").write_text(
        json.dumps({"model": {"type": "WordLevel", "vocab": vocabulary}, "added_tokens": []})
    )
    (place / "recipe.yml").write_text(
        "merge_method: linear\nmodels: [{model: ./a}, {model: ./other}]\nparameters: {weight: 1}\ntokenizer: {}\n"
    )
    result = command("check", "recipe.yml", *UNLOADED, "--set", "options.tokenizer_source=base")
    assert "has the tokens of 'a' in other rows (8 moved)" in result.out + result.err
