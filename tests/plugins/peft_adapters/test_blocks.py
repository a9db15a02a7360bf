"""A folded tensor is its full float64 formula, whatever its shape, and the same bits whatever is read at a time.

Tensors are made in blocks of 64 rows: these have 1, 7, 64, 65 or 130 rows, and columns and ranks of 1, 7 and 65.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from attrs import field, frozen
from modelmerger import Checkpoint, MergeConfig, ModelMerger
from modelmerger.inputs.file_checkpoint import FileCheckpoint
from plugins.peft_adapters.handmade import PREFIX
from safetensors.numpy import save_file

Array = np.ndarray[Any, np.dtype[Any]]
SCALE = 1.5
LENGTHS = {1: (1, 1), 7: (7, 1), 64: (16, 4), 65: (5, 13), 130: (10, 13)}
"""Lengths, each as a product of two."""
SHAPES = [(rows, columns) for rows in LENGTHS for columns in (1, 7, 65)]
random = np.random.default_rng(0)


@frozen
class Made:
    """A tensor of a base, what an adapter has for it, and what it must become; all in float64."""

    base: Array
    """Its numbers fit in half precision."""
    adapter: Mapping[str, Array]
    wanted: Array
    bias: tuple[Array, Array] | None = None
    """The bias beside the tensor, and what that must become."""
    leaf: str = "weight"
    config: dict[str, Any] = field(factory=dict)


def normal(*shape: int) -> Array:
    return random.normal(size=shape)


def half(*shape: int) -> Array:
    return normal(*shape).astype(np.float16).astype(np.float64)


def lora(_: str, rows: int, columns: int, rank: int) -> Made:
    w, a, b = half(rows, columns), normal(rank, columns), normal(rows, rank)
    bias, shift = half(rows), normal(rows)
    adapter = {"lora_A.weight": a, "lora_B.weight": b, "lora_B.bias": shift}
    return Made(w, adapter, w + SCALE * b @ a, (bias, bias + SCALE * shift))


def lora_of_conv1d(_: str, rows: int, columns: int, rank: int) -> Made:
    """Whose rows are its inputs."""
    w, a, b = half(rows, columns), normal(rank, rows), normal(columns, rank)
    adapter = {"lora_A.weight": a, "lora_B.weight": b}
    return Made(w, adapter, w + SCALE * (b @ a).T, config={"fan_in_fan_out": True})


def lora_of_convolution(_: str, rows: int, columns: int, rank: int) -> Made:
    w, a, b = half(rows, columns, 3), normal(rank, columns, 3), normal(rows, rank, 1)
    product = b.reshape(rows, rank) @ a.reshape(rank, -1)
    return Made(w, {"lora_A.weight": a, "lora_B.weight": b}, w + SCALE * product.reshape(w.shape))


def dora(_: str, rows: int, columns: int, rank: int) -> Made:
    w, a, b, m = half(rows, columns), normal(rank, columns), normal(rows, rank), normal(rows)
    v = w + SCALE * b @ a
    adapter = {"lora_A.weight": a, "lora_B.weight": b, "lora_magnitude_vector": m}
    return Made(w, adapter, m[:, None] * v / np.linalg.norm(v, axis=1)[:, None], config={"use_dora": True})


def dora_of_embedding(_: str, rows: int, columns: int, rank: int) -> Made:
    w, a, b, m = half(rows, columns), normal(rank, rows), normal(columns, rank), normal(columns)
    v = w + SCALE * (b @ a).T
    adapter = {"lora_embedding_A": a, "lora_embedding_B": b, "lora_magnitude_vector": m}
    return Made(w, adapter, m * v / np.linalg.norm(v, axis=0), config={"use_dora": True})


def loha(_: str, rows: int, columns: int, rank: int) -> Made:
    w, b1, a1, b2, a2 = half(rows, columns), *(normal(*s) for s in [(rows, rank), (rank, columns)] * 2)
    adapter = {"hada_w1_a": b1, "hada_w1_b": a1, "hada_w2_a": b2, "hada_w2_b": a2}
    return Made(w, adapter, w + SCALE * (b1 @ a1) * (b2 @ a2), config={"peft_type": "LOHA"})


def lokr(_: str, rows: int, columns: int, rank: int) -> Made:
    (outer_rows, inner_rows), (outer_columns, inner_columns) = LENGTHS[rows], LENGTHS[columns]
    w, one, two = half(rows, columns), normal(outer_rows, rank), normal(rank, outer_columns)
    right = normal(inner_rows, inner_columns)
    adapter = {"lokr_w1_a": one, "lokr_w1_b": two, "lokr_w2": right}
    return Made(w, adapter, w + SCALE * np.kron(one @ two, right), config={"peft_type": "LOKR"})


def vera(_: str, rows: int, columns: int, rank: int) -> Made:
    """The shared matrices are larger than any layer."""
    shared = np.random.default_rng(rank)
    a, b = shared.normal(size=(rank, 70)), shared.normal(size=(140, rank))
    w, out_scales, rank_scales = half(rows, columns), normal(rows), normal(rank)
    wanted = w + (out_scales[:, None] * b[:rows]) @ (rank_scales[:, None] * a[:, :columns])
    adapter = {"vera_lambda_b": out_scales, "vera_lambda_d": rank_scales}
    return Made(w, adapter | {"base_model.vera_A": a, "base_model.vera_B": b}, wanted, config={"peft_type": "VERA"})


def ia3(_: str, rows: int, columns: int, __: int) -> Made:
    w, vector, bias = half(rows, columns), normal(rows), half(rows)
    config = {"peft_type": "IA3"}
    return Made(w, {"ia3_l": vector[:, None]}, w * vector[:, None], (bias, bias * vector), config=config)


def ia3_of_inputs(_: str, rows: int, columns: int, __: int) -> Made | None:
    w, vector = half(rows, columns), normal(columns)
    return Made(w, {"ia3_l": vector[None]}, w * vector, config={"peft_type": "IA3"}) if columns > 1 else None


def trained_whole(_: str, rows: int, columns: int, __: int) -> Made:
    wanted = normal(rows, columns)
    return Made(half(rows, columns), {"modules_to_save.weight": wanted}, wanted)


def trained_rows(module: str, rows: int, columns: int, _: int) -> Made:
    """The first, the last, and those at the borders of blocks; not in order."""
    indices = [index for index in dict.fromkeys((64, rows - 1, 0, 63)) if index < rows]
    w, given = half(rows, columns), normal(len(indices), columns)
    wanted = w.copy()
    wanted[indices] = given
    adapter = {"token_adapter.trainable_tokens_delta": given}
    return Made(w, adapter, wanted, config={"trainable_token_indices": {module: indices}})


def experts(module: str, rows: int, columns: int, rank: int) -> Made | None:
    """Three in one tensor, so that a block may belong to two. Square ones do not show how they are stored."""
    w, a, b = half(3, rows, columns), normal(3 * rank, columns), normal(rows, rank * 3)
    updates = np.stack([SCALE * b[:, e::3] @ a[e * rank : (e + 1) * rank] for e in range(3)])
    config = {"target_parameters": [f"{module}.w"]}
    return (
        Made(w, {"lora_A.weight": a, "lora_B.weight": b}, w + updates, leaf="w", config=config)
        if rows != columns
        else None
    )


def transposed_experts(module: str, rows: int, columns: int, rank: int) -> Made | None:
    made = experts(module, columns, rows, rank)
    if made is None:
        return None
    return Made(made.base.swapaxes(1, 2), made.adapter, made.wanted.swapaxes(1, 2), leaf="w", config=made.config)


Kind = Callable[[str, int, int, int], Made | None]
KINDS: list[Kind] = [
    *(lora, lora_of_conv1d, lora_of_convolution, dora, dora_of_embedding, loha, lokr, vera, ia3, ia3_of_inputs),
    *(trained_whole, trained_rows, experts, transposed_experts),
]


@pytest.mark.parametrize(("rank", "stored"), [(1, "float64"), (7, "float64"), (65, "float64"), (65, "float16")])
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_folded_tensors_are_the_full_product(tmp_path: Path, kind: Kind, rank: int, stored: str) -> None:
    """Computed in float64, and for a base in half precision in float32."""
    modules = {f"m{rows}x{columns}": kind(f"m{rows}x{columns}", rows, columns, rank) for rows, columns in SHAPES}
    made = {module: of_module for module, of_module in modules.items() if of_module is not None}
    merger = ModelMerger(
        MergeConfig(strategy="weighted", models=[{"path": str(written(tmp_path, made, rank, stored))}])
    )
    folded = merger.load_models()["adapter"]
    precision = (np.float64, 1e-12) if stored == "float64" else (np.float32, 1e-5)
    for module, of_module in made.items():
        check(folded, f"{module}.{of_module.leaf}", of_module.wanted, *precision)
        if of_module.bias is not None:
            check(folded, f"{module}.bias", of_module.bias[1], *precision)


@pytest.mark.parametrize(("start", "stop"), [(0, 1), (64 * 65 - 1, 64 * 65 + 1), (70 * 65, 130 * 65), (0, 130 * 65)])
def test_what_is_said_to_be_read_of_the_base_is_what_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, start: int, stop: int
) -> None:
    made = lora("m", 130, 65, 7)
    path = written(tmp_path, {"m": made}, 7, "float16")
    folded = ModelMerger(MergeConfig(strategy="weighted", models=[{"path": str(path)}])).load_models()["adapter"]
    said: list[tuple[int, int]] = []
    done: list[tuple[int, int]] = []
    reading = FileCheckpoint.read

    def noted(self: FileCheckpoint, tensor: str, start: int, stop: int, buffer: memoryview) -> None:
        if "lora" not in tensor:
            done.append((start, stop))
        reading(self, tensor, start, stop, buffer)

    monkeypatch.setattr(FileCheckpoint, "prefetch", lambda _, __, start, stop: said.append((start, stop)))
    monkeypatch.setattr(FileCheckpoint, "read", noted)
    folded.prefetch("m.weight", start, stop)
    list(read(folded, "m.weight", [start, stop], np.float32))

    assert said == [(done[0][0], done[-1][1])]
    assert all(before == after for (_, before), (after, _) in pairwise(done))


def check(folded: Checkpoint, tensor: str, wanted: Array, dtype: type, most: float) -> None:
    info = folded.tensors[tensor]
    assert info.bytes == wanted.size * np.dtype(dtype).itemsize
    (whole,) = read(folded, tensor, [0, info.elements], dtype)
    assert info.shape == wanted.shape
    assert np.abs(whole - wanted.reshape(-1)).max() <= most * max(1, np.abs(wanted).max())
    for step in (1, 7, 65, 1001, 4097):
        if info.elements // step < 500:
            cuts = [*range(0, info.elements, step), info.elements]
            assert np.concatenate(list(read(folded, tensor, cuts, dtype))).tobytes() == whole.tobytes()


def read(folded: Checkpoint, tensor: str, cuts: list[int], dtype: type) -> Iterator[Array]:
    for start, stop in pairwise(cuts):
        values = np.empty(stop - start, dtype)
        folded.read(tensor, start, stop, memoryview(values).cast("B"))
        yield values


def written(folder: Path, modules: Mapping[str, Made], rank: int, stored: str) -> Path:
    """A base of this dtype, and an adapter of it."""
    base: dict[str, Array] = {}
    adapter: dict[str, Array] = {}
    config: dict[str, Any] = {"peft_type": "LORA", "r": rank, "lora_alpha": SCALE * rank}
    for module, made in modules.items():
        base |= {f"{module}.{made.leaf}": made.base} | ({f"{module}.bias": made.bias[0]} if made.bias else {})
        keys = {role: role if role.startswith("base_model.") else f"{PREFIX}{module}.{role}" for role in made.adapter}
        adapter |= {keys[role]: values for role, values in made.adapter.items()}
        for name, value in made.config.items():
            if isinstance(value, dict):
                config[name] = config.get(name, {}) | value
            else:
                config[name] = config.get(name, []) + value if isinstance(value, list) else value
    config["base_model_name_or_path"] = str(folder / "base")
    for name, file, tensors in (
        ("base", "model.safetensors", {name: values.astype(stored) for name, values in base.items()}),
        ("adapter", "adapter_model.safetensors", adapter),
    ):
        (folder / name).mkdir()
        save_file({key: np.ascontiguousarray(values) for key, values in tensors.items()}, folder / name / file)
    (folder / "base" / "config.json").write_text("{}")
    (folder / "adapter" / "adapter_config.json").write_text(json.dumps(config))
    return folder / "adapter"
