"""Run recipes in mergekit and here, and print how far apart the results are, as a table.

    python tests/plugins/mergekit_recipes/compare_with_mergekit.py PATH/TO/mergekit-yaml

mergekit runs as a program of its own, in an environment of its own; nothing of it is imported here. Methods that drop
elements at random are run at density 1, where nothing is dropped. Each number is the largest difference in a tensor,
over the largest magnitude there, in units of 1e-7, which is about one rounding of float32.
"""

import json
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from modelmerger import MergeConfig, merge
from safetensors.torch import load_file, save_file

HIDDEN, INNER, VOCABULARY, LAYERS = 16, 24, 32, 4
CONFIG = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": HIDDEN, "intermediate_size": INNER,
    "num_attention_heads": 2, "num_key_value_heads": 2, "num_hidden_layers": LAYERS, "vocab_size": VOCABULARY,
    "max_position_embeddings": 32, "rms_norm_eps": 1e-6, "tie_word_embeddings": False, "torch_dtype": "float32",
}  # fmt: skip
NUMBERS = {
    "number": "0.7",
    "list": "[0.1, 0.4, 0.9]",
    "filters": "[{filter: self_attn, value: [0.2, 0.8]}, {filter: norm, value: [0.3, 0.6]}, {filter: layers.2., value: 0.9}, {value: 0.5}]",
}
"""Ways to give a parameter."""
WEIGHTED = [
    "linear",
    "nuslerp",
    "multislerp",
    "task_arithmetic",
    "ties",
    "dare_linear",
    "dare_ties",
    "della",
    "della_linear",
]
WEIGHTED += ["breadcrumbs", "breadcrumbs_ties"]


def tensors(seed: int, base: dict[str, torch.Tensor] | None) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shapes = {
        "model.embed_tokens.weight": (VOCABULARY, HIDDEN),
        "model.norm.weight": (HIDDEN,),
        "lm_head.weight": (VOCABULARY, HIDDEN),
    }
    for layer in range(LAYERS):
        start = f"model.layers.{layer}."
        shapes |= {f"{start}self_attn.{part}_proj.weight": (HIDDEN, HIDDEN) for part in "qkvo"}
        shapes |= {f"{start}mlp.{part}_proj.weight": (INNER, HIDDEN) for part in ("gate", "up")}
        shapes |= {f"{start}mlp.down_proj.weight": (HIDDEN, INNER)}
        shapes |= {f"{start}{part}_layernorm.weight": (HIDDEN,) for part in ("input", "post_attention")}
    made = {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    return made if base is None else {name: base[name] + 0.3 * value for name, value in made.items()}


def write_models(place: Path) -> None:
    base = tensors(0, None)
    for number, name in enumerate(("base", "a", "b", "c")):
        (place / name).mkdir()
        (place / name / "config.json").write_text(json.dumps(CONFIG))
        save_file(base if not number else tensors(number, base), place / name / "model.safetensors", {"format": "pt"})


def recipes() -> Iterator[tuple[str, str]]:
    """Name → recipe."""
    for method in WEIGHTED:
        count = 2 if method == "nuslerp" else 3
        base = "" if method == "linear" else "base_model: ./base\n"
        for way, weight in NUMBERS.items():
            models = "".join(
                f"- {{model: ./{name}, parameters: {{weight: {weight}}}}}\n" for name in "abc"[: count - 1]
            )
            models += f"- {{model: ./{'abc'[count - 1]}, parameters: {{weight: 0.3}}}}\n"
            yield f"{method}, weight: {way}", f"merge_method: {method}\n{base}models:\n{models}dtype: float32\n"
    pair = "base_model: ./base\nmodels:\n- model: ./a\n"
    three = "base_model: ./base\nmodels:\n- model: ./a\n- model: ./b\n- model: ./c\n"
    weighted = "base_model: ./base\nmodels:\n- {model: ./a, parameters: {weight: 0.7}}\n- {model: ./b, parameters: {weight: 0.5}}\n"
    for way, t in NUMBERS.items():
        yield f"slerp, t: {way}", f"merge_method: slerp\n{pair}parameters: {{t: {t}}}\ndtype: float32\n"
    yield (
        "slerp of slices",
        (
            "merge_method: slerp\nbase_model: ./base\nslices:\n"
            "- sources: [{model: ./a, layer_range: [0, 2]}, {model: ./base, layer_range: [0, 2]}]\n"
            "- sources: [{model: ./a, layer_range: [1, 4]}, {model: ./base, layer_range: [1, 4]}]\n"
            "  parameters: {t: [0.2, 0.6]}\n"
            "parameters: {t: [{filter: layers.1.mlp, value: 0.9}, {value: [0.3, 0.5]}]}\ndtype: float32\n"
        ),
    )
    yield (
        "linear of slices",
        (
            "merge_method: linear\nslices:\n"
            "- sources: [{model: ./a, layer_range: [0, 2], parameters: {weight: 0.25}}, {model: ./b, layer_range: [2, 4]}]\n"
            "- sources: [{model: ./a, layer_range: [2, 3], parameters: {weight: [{filter: layers.2., value: 3}]}}, {model: ./b, layer_range: [3, 4]}]\n"
            "parameters: {weight: 0.75}\ndtype: float32\n"
        ),
    )
    yield (
        "ties of slices",
        (
            "merge_method: ties\nbase_model: ./base\nslices:\n"
            "- sources: [{model: ./a, layer_range: [1, 3], parameters: {weight: 1, density: 0.5}},"
            " {model: ./b, layer_range: [1, 3], parameters: {weight: 0.5, density: 0.25}}, {model: ./base, layer_range: [1, 3]}]\n"
            "dtype: float32\n"
        ),
    )
    yield (
        "passthrough, scale: filters",
        (
            "merge_method: passthrough\nslices:\n- sources: [{model: ./a, layer_range: [0, 3]}]\n"
            "- sources: [{model: ./b, layer_range: [2, 4], parameters: {scale: [{filter: down_proj, value: 0}, {filter: layers.3.self_attn, value: 0.5}, {value: 1}]}}]\n"
            "dtype: float32\n"
        ),
    )
    for method, more in (
        ("ties", "density: 0.25"),
        ("breadcrumbs", "density: 0.5, gamma: 0.1"),
        ("breadcrumbs_ties", "density: 0.5, gamma: 0.1"),
    ):
        yield (
            f"{method}, {more}",
            f"merge_method: {method}\n{weighted}parameters: {{{more}, lambda: 0.8}}\ndtype: float32\n",
        )
    for method in ("task_arithmetic", "ties", "dare_linear", "della", "breadcrumbs"):
        for truth in ("true", "false"):
            yield (
                f"{method}, normalize: {truth}",
                f"merge_method: {method}\n{weighted}parameters: {{normalize: {truth}, lambda: 0.6}}\ndtype: float32\n",
            )
    yield (
        "linear, normalize: false",
        "merge_method: linear\nmodels:\n- {model: ./a, parameters: {weight: 0.4}}\n- {model: ./b, parameters: {weight: 0.3}}\nparameters: {normalize: 0}\ndtype: float32\n",
    )
    yield (
        "nuslerp without a base",
        "merge_method: nuslerp\nmodels:\n- {model: ./a, parameters: {weight: 0.4}}\n- {model: ./b, parameters: {weight: 0.3}}\ndtype: float32\n",
    )
    yield (
        "multislerp without a base",
        "merge_method: multislerp\nmodels:\n- {model: ./a, parameters: {weight: 0.4}}\n- {model: ./b, parameters: {weight: 0.3}}\ndtype: float32\n",
    )
    yield (
        "multislerp of one model",
        "merge_method: multislerp\nbase_model: ./base\nmodels:\n- {model: ./a, parameters: {weight: 0.4}}\ndtype: float32\n",
    )
    yield (
        "karcher",
        "merge_method: karcher\nmodels:\n- model: ./a\n- model: ./b\n- model: ./c\nparameters: {max_iter: 50}\ndtype: float32\n",
    )
    for method, more in (
        ("model_stock", ""),
        ("sce", ""),
        ("sce", "select_topk: 0.3"),
        ("ram", "epsilon: 0.05"),
        ("ramplus_tl", "epsilon: 0.05"),
    ):
        yield (
            f"{method}{', ' if more else ''}{more}",
            f"merge_method: {method}\n{three}parameters: {{{more}}}\ndtype: float32\n",
        )
    yield "nearswap", f"merge_method: nearswap\n{pair}parameters: {{t: [0.01, 0.05]}}\ndtype: float32\n"
    yield "arcee_fusion", f"merge_method: arcee_fusion\n{pair}dtype: float32\n"
    yield "base alone", "merge_method: ties\nbase_model: ./base\nmodels:\n- model: ./base\ndtype: float32\n"
    yield (
        "modules",
        "merge_method: ties\nbase_model: ./base\nmodules:\n  default:\n    slices:\n    - sources:\n      - {model: ./a, layer_range: [0, 4], parameters: {weight: 0.4}}\n      - {model: ./base, layer_range: [0, 4]}\ndtype: float32\n",
    )
    yield "written in bfloat16", f"merge_method: ties\n{weighted}dtype: float32\nout_dtype: bfloat16\n"


def weights(directory: Path) -> dict[str, torch.Tensor]:
    return {k: v for file in directory.glob("*.safetensors") for k, v in load_file(file).items()}


def compare(place: Path, program: str, number: int, recipe: str) -> str:
    """What is to be said of one recipe."""
    file = place / f"{number}.yml"
    file.write_text(recipe)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": "", "HF_HUB_OFFLINE": "1"}
    command = [program, file.name, f"theirs{number}", "--trust-remote-code", "--lora-merge-cache", "cache"]
    ran = subprocess.run(command, cwd=place, capture_output=True, text=True, env=environment, check=False)
    if ran.returncode:
        return f"mergekit: {ran.stderr.strip().splitlines()[-1][:80]}"
    theirs = weights(place / f"theirs{number}")
    config = MergeConfig.from_file(file.name)
    config.output_path = f"ours{number}"
    merge(config)
    ours = weights(place / f"ours{number}")
    if ours.keys() != theirs.keys():
        return f"other tensors: {sorted(ours.keys() ^ theirs.keys())[:3]}"
    if any(ours[name].dtype != theirs[name].dtype for name in ours):
        return "other dtypes"
    far = {
        name: ((ours[name].double() - t.double()).abs().max() / t.double().abs().max().clamp(min=1e-30)).item()
        for name, t in theirs.items()
    }
    worst = max(far, key=lambda name: math.inf if math.isnan(far[name]) else far[name])
    return f"{far[worst] * 1e7:.3g}" + (f" ({worst})" if far[worst] > 1e-6 else "")


def main(program: str, *chosen: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        write_models(Path(folder))
        found = [(name, recipe) for name, recipe in recipes() if not chosen or any(word in name for word in chosen)]
        with ThreadPoolExecutor(2) as pool:
            said = pool.map(lambda one: compare(Path(folder), program, *one), enumerate(recipe for _, recipe in found))
            for (name, _), result in zip(found, said, strict=True):
                print(f"| {name} | {result} |", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
