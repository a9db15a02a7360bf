"""Keys that something else than PEFT's `save_pretrained` wrote: read as PEFT's, with a note."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from modelmerger import InputError
from plugins.peft_adapters.handmade import PREFIX, Made, write_adapter, write_base
from plugins.peft_adapters.spoiling import change, merger
from plugins.peft_adapters.tiny_adapters import merged
from safetensors.numpy import load_file, save_file

SHAPES = {f"model.layers.{i}.self_attn.{name}": (6, 8) for i in range(2) for name in ("q_proj", "v_proj")}


@pytest.fixture
def made(tmp_path: Path) -> Made:
    base = write_base(tmp_path / "base", SHAPES | {"model.layers.0.mlp.up_proj": (4, 8)})
    return write_adapter(tmp_path / "adapter", base, SHAPES, 1)


def rename(adapter: Path, rename_key: Callable[[str], str]) -> None:
    file = adapter / "adapter_model.safetensors"
    save_file({rename_key(key): value for key, value in load_file(file).items()}, file, metadata={"format": "pt"})


RENAMED: dict[str, tuple[Callable[[str], str], str]] = {
    "named": (lambda key: key.replace(".weight", ".default.weight"), "hold .default, which PEFT does not write"),
    "otherwise named": (lambda key: key.replace(".weight", ".arabic.weight"), "hold .arabic, which"),
    "compiled": (lambda key: key.replace(PREFIX, f"{PREFIX}_orig_mod."), "hold _orig_mod., which"),
    "compiled around": (lambda key: f"_orig_mod.{key}", "hold _orig_mod., which"),
    "parallel": (lambda key: f"module.{key}", "hold module., which"),
    "parallel inside": (lambda key: key.replace(PREFIX, f"{PREFIX}module."), "hold module., which"),
    "sharded": (lambda key: key.replace("self_attn", "_fsdp_wrapped_module.self_attn"), "_fsdp_wrapped_module."),
    "bare": (lambda key: key.removeprefix(PREFIX), "has keys that do not begin with base_model.model.. They"),
    "kohya": (
        lambda key: key.replace("lora_A", "lora_down").replace("lora_B", "lora_up"),
        "hold lora_down, lora_up, which PEFT does not write",
    ),
    "diffusers": (
        lambda key: f"module.{key}".replace("lora_A", "lora.down").replace("lora_B", "lora.up"),
        "hold module., lora_down, lora_up, which",
    ),
    "twice": (lambda key: PREFIX + key, "has keys that repeat base_model.model.. They"),
    "all of it": (
        lambda key: f"module._orig_mod.{key.removeprefix(PREFIX).replace('.weight', '.default.weight')}",
        "and do not begin with base_model.model.",
    ),
}


@pytest.mark.parametrize("name", RENAMED)
def test_keys_of_others_are_read_as_those_of_peft(made: Made, tmp_path: Path, name: str) -> None:
    rename_key, sentence = RENAMED[name]
    rename(made.path, rename_key)
    notes = [note for note in merger(made.path).check_compatibility() if "has keys that" in note.message]
    assert [note.severity for note in notes] == ["note"]
    assert sentence in notes[0].message

    found = merged(tmp_path / "merged", made.path)
    base = load_file(tmp_path / "base" / "model.safetensors")
    for module, update in made.updates.items():
        wanted = base[f"{module}.weight"] + update
        np.testing.assert_allclose(found[f"{module}.weight"].numpy(), wanted, rtol=1e-6, atol=1e-6)


def test_layers_in_data_parallelism_one_by_one(made: Made, tmp_path: Path) -> None:
    plain = merged(tmp_path / "plain", made.path)
    rename(made.path, lambda key: key.replace(".layers.0.", ".layers.0.module."))
    found = merged(tmp_path / "merged", made.path)
    assert found.keys() == plain.keys()
    assert all(bool((found[name] == plain[name]).all()) for name in plain)


def test_keys_of_peft_are_no_matter(made: Made) -> None:
    assert not [note for note in merger(made.path).check_compatibility() if "keys" in note.message]


def test_a_whole_state_dict_has_more_than_the_adapter(made: Made, tmp_path: Path) -> None:
    """What PEFT keeps of the original is left out; what was trained whole has the adapter's name too."""
    file = made.path / "adapter_model.safetensors"
    whole = f"{PREFIX}model.layers.0.mlp.up_proj"
    trained = np.ones((4, 8), np.float32)
    more = {f"{whole}.modules_to_save.default.weight": trained, f"{whole}.original_module.weight": 2 * trained}
    save_file(load_file(file) | more, file, metadata={"format": "pt"})
    found = merged(tmp_path / "merged", made.path)
    assert (found["model.layers.0.mlp.up_proj.weight"].numpy() == trained).all()


def test_an_adapter_that_is_scaled_by_nothing_is_a_warning(made: Made) -> None:
    config = made.path / "adapter_config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "lora_alpha": 0}))
    (found,) = [note for note in merger(made.path).check_compatibility() if "changes nothing" in note.message]
    assert (found.severity, found.message) == (
        "warning",
        "changes nothing: its updates are scaled by 0, so the result is as without it. Is lora_alpha right?",
    )


def test_several_adapters_in_one_file_are_refused(made: Made) -> None:
    rename(made.path, lambda key: key.replace(".weight", ".one.weight" if "q_proj" in key else ".two.weight"))
    with pytest.raises(InputError, match=r"holds 2 adapters in one file \(one, two\)"):
        merger(made.path).check_compatibility()


def test_two_keys_that_are_one_to_peft_are_refused(made: Made) -> None:
    file = made.path / "adapter_model.safetensors"
    tensors = load_file(file)
    key = next(iter(tensors))
    save_file(tensors | {key.replace("model.layers", "_orig_mod.model.layers"): tensors[key]}, file)
    with pytest.raises(InputError, match="which are one tensor to PEFT"):
        merger(made.path).check_compatibility()


def test_shared_projections_keep_their_names(made: Made, tmp_path: Path) -> None:
    """VeRA's, which no module has."""
    (module, (out, into)) = next(iter(SHAPES.items()))
    tensors = {
        "base_model.vera_A": np.ones((2, into), np.float32),
        "base_model.vera_B": np.ones((out, 2), np.float32),
        f"{PREFIX}{module}.vera_lambda_b": np.ones(out, np.float32),
        f"{PREFIX}{module}.vera_lambda_d": np.ones(2, np.float32),
    }
    save_file({f"{key}.default": value for key, value in tensors.items()}, made.path / "adapter_model.safetensors")
    (made.path / "adapter_config.json").write_text(json.dumps({"peft_type": "VERA", "r": 2}))
    change(made.path, base_model_name_or_path=str(tmp_path / "base"))
    found = merged(tmp_path / "merged", made.path)[f"{module}.weight"].numpy()
    base = load_file(tmp_path / "base" / "model.safetensors")[f"{module}.weight"]
    np.testing.assert_allclose(found, base + 2, rtol=1e-6)
