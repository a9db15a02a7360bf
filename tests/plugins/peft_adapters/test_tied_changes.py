"""Adapters of an LM head and the embedding that it is tied to: one change where both are one, a way out where not."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from modelmerger import InputError
from modelmerger_plugins.peft_adapters.reading.values import CHUNK, are_equal, are_transposed, is_one, is_zero
from plugins.peft_adapters.handmade import PREFIX, write_adapter, write_base
from plugins.peft_adapters.spoiling import change, merger
from plugins.peft_adapters.tiny_adapters import merged
from safetensors.numpy import load_file, save_file

LAYER = {"model.layers.0.self_attn.q_proj": (6, 8)}
EMBEDDING, HEAD = f"{PREFIX}model.embed_tokens", f"{PREFIX}lm_head"
Tensors = dict[str, np.ndarray]


def random(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """Its LM head is stored nowhere, since it is the embedding."""
    made = write_base(tmp_path / "base", {"model.embed_tokens": (10, 8), **LAYER})
    (made / "config.json").write_text('{"tie_word_embeddings": true}')
    return made


def adapter_of(base: Path, tensors: Tensors, **fields: Any) -> Path:
    path = write_adapter(base.parent / "adapter", base, LAYER, 1).path
    file = path / "adapter_model.safetensors"
    save_file(load_file(file) | tensors, file, metadata={"format": "pt"})
    change(path, **fields)
    return path


def whole(embedding: np.ndarray, head: np.ndarray) -> Tensors:
    return {f"{EMBEDDING}.weight": embedding, f"{HEAD}.weight": head}


def factors(a: np.ndarray, b: np.ndarray, head_a: np.ndarray, head_b: np.ndarray) -> Tensors:
    return {
        f"{EMBEDDING}.lora_embedding_A": a,
        f"{EMBEDDING}.lora_embedding_B": b,
        f"{HEAD}.lora_A.weight": head_a,
        f"{HEAD}.lora_B.weight": head_b,
    }


def test_what_is_trained_whole_and_equal_is_changed_once(base: Path, tmp_path: Path) -> None:
    matrix = random(3, 10, 8)
    adapter = adapter_of(base, whole(matrix, matrix.copy()), ensure_weight_tying=True)
    assert not [note for note in merger(adapter).check_compatibility() if "tied" in note.message]
    found = merged(tmp_path / "merged", adapter)
    assert "lm_head.weight" not in found
    assert (found["model.embed_tokens.weight"].numpy() == matrix).all()


def test_what_a_class_ties_under_other_names_is_one_matrix_too(tmp_path: Path) -> None:
    """As Whisper ties its output to the embedding of its decoder, which no config says."""
    base = write_base(tmp_path / "base", {"model.decoder.embed_tokens": (10, 8), **LAYER})
    names = {"model_type": "whisper", "architectures": ["WhisperForConditionalGeneration"]}
    (base / "config.json").write_text(json.dumps(names))
    matrix, head = random(3, 10, 8), f"{PREFIX}proj_out.weight"
    adapter = adapter_of(base, {f"{PREFIX}model.decoder.embed_tokens.weight": matrix, head: matrix.copy()})
    found = merged(tmp_path / "merged", adapter)
    assert "proj_out.weight" not in found
    assert (found["model.decoder.embed_tokens.weight"].numpy() == matrix).all()

    adapter = adapter_of(base, {head: matrix})
    said = (
        r"changes proj_out.weight, which 'base' ties to model.decoder.embed_tokens.weight: untie the base first\. To do"
    )
    with pytest.raises(InputError, match=said):
        merger(adapter).check_compatibility()

    (base / "config.json").write_text(json.dumps({**names, "tie_word_embeddings": False}))
    with pytest.raises(InputError, match=r"matches nothing: 'base' has no tensor proj_out\.weight"):
        merger(adapter).check_compatibility()


def test_factors_that_are_equal_are_added_once(base: Path, tmp_path: Path) -> None:
    """PEFT's own merge_and_unload adds them twice, which is not the model that was trained."""
    a, b = random(1, 2, 10), random(2, 8, 2)
    found = merged(tmp_path / "merged", adapter_of(base, factors(a, b, b.T.copy(), a.T.copy())))
    before = load_file(base / "model.safetensors")["model.embed_tokens.weight"]
    wanted = before + 1.5 * (a.T.astype(np.float64) @ b.T)
    np.testing.assert_allclose(found["model.embed_tokens.weight"].numpy(), wanted, rtol=1e-6, atol=1e-6)


def unequal() -> dict[str, tuple[Tensors, dict[str, Any]]]:
    a, b, matrix = random(1, 2, 10), random(2, 8, 2), random(3, 10, 8)
    other = matrix.copy()
    other[9, 7] += 1
    same = factors(a, b, b.T.copy(), a.T.copy())
    return {
        "whole": (whole(matrix, other), {}),
        "in another dtype": (whole(matrix, matrix.astype(np.float16)), {}),
        "the head alone": ({f"{HEAD}.weight": matrix}, {}),
        "factors": (factors(a, b, b.T.copy(), a.T + 1), {}),
        "alpha": (same, {"alpha_pattern": {"lm_head": 9}}),
    }


@pytest.mark.parametrize("name", unequal())
def test_what_differs_says_how_to_untie(base: Path, name: str) -> None:
    tensors, fields = unequal()[name]
    with pytest.raises(InputError) as refusal:
        merger(adapter_of(base, tensors, **fields)).check_compatibility()
    (problem,) = refusal.value.problems
    assert problem.message == (
        "changes lm_head.weight, which 'base' ties to model.embed_tokens.weight: untie the base first. "
        "Set options.untie: true to write both, or give a base with an LM head of its own as "
        "peft_config.base_model_path."
    )


def test_untied_both_are_written(base: Path, tmp_path: Path) -> None:
    """What the sentence says; the LM head is the embedding's numbers with its own update."""
    a, b, head_a, head_b = random(1, 2, 10), random(2, 8, 2), random(5, 2, 8), random(6, 10, 2)
    adapter = adapter_of(base, factors(a, b, head_a, head_b))
    found = merged(tmp_path / "merged", adapter, options={"untie": True})
    before = load_file(base / "model.safetensors")["model.embed_tokens.weight"].astype(np.float64)
    wanted = {"model.embed_tokens.weight": before + 1.5 * a.T @ b.T, "lm_head.weight": before + 1.5 * head_b @ head_a}
    for name, tensor in wanted.items():
        np.testing.assert_allclose(found[name].numpy(), tensor, rtol=1e-5, atol=1e-6)
    assert json.loads((tmp_path / "merged" / "config.json").read_text())["tie_word_embeddings"] is False


def test_merged_updates_have_no_such_way(base: Path) -> None:
    adapter = adapter_of(base, {f"{HEAD}.weight": random(3, 10, 8)})
    with pytest.raises(InputError, match=r"untie the base first. To do so, give a base with an LM head of its own"):
        merger(adapter, peft_config={"merge_adapters": True}).check_compatibility()


def test_an_untied_base_takes_both(base: Path, tmp_path: Path) -> None:
    """As the sentence says: the LM head as a copy."""
    file = base / "model.safetensors"
    tensors = load_file(file)
    save_file(tensors | {"lm_head.weight": tensors["model.embed_tokens.weight"]}, file, metadata={"format": "pt"})
    (base / "config.json").write_text('{"tie_word_embeddings": false}')
    one, other = random(3, 10, 8), random(4, 10, 8)
    found = merged(tmp_path / "merged", adapter_of(base, whole(one, other)))
    assert (found["model.embed_tokens.weight"].numpy() == one).all()
    assert (found["lm_head.weight"].numpy() == other).all()


class InMemory:
    """As much of a checkpoint as looking at its numbers takes."""

    def __init__(self, tensors: Tensors) -> None:
        from modelmerger import TensorInfo

        names = {"float32": "F32", "float16": "F16", "float64": "F64"}
        self.arrays = tensors
        self.tensors = {key: TensorInfo(names[str(t.dtype)], t.shape) for key, t in tensors.items()}

    def read(self, key: str, start: int, stop: int, buffer: memoryview) -> None:
        buffer[:] = memoryview(self.arrays[key].reshape(-1)[start:stop].tobytes())


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_zeros_ones_and_equal_bits(dtype: str) -> None:
    """Beyond one chunk, with zeros of both signs."""
    zeros = np.zeros(CHUNK + 3, dtype)
    zeros[::2] = -0.0
    last, tiny = zeros.copy(), zeros.copy()
    last[-1], tiny[5] = 1, np.finfo(dtype).smallest_subnormal
    ones, matrix = np.ones(CHUNK + 1, dtype), random(1, 5, 7).astype(dtype)
    held = {"zeros": zeros, "last": last, "tiny": tiny, "ones": ones, "matrix": matrix, "turned": matrix.T.copy()}
    held |= {"again": matrix.copy(), "other": matrix + 1, "none": np.zeros((0, 3), dtype)}
    of: Any = InMemory(held)
    assert [key for key in held if is_zero(of, key)] == ["zeros", "none"]
    assert [key for key in held if is_one(of, key)] == ["ones", "none"]
    assert [key for key in held if are_equal(of, "matrix", key)] == ["matrix", "again"]
    assert [key for key in held if are_transposed(of, "matrix", key)] == ["turned"]
    assert are_equal(of, "matrix", "again", InMemory(held))  # type: ignore[arg-type]
