"""Compiled arithmetic: as the eager one, and eager where there is no compiler."""

import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import modelmerger
import pytest
import torch
from core.plugging import install
from modelmerger import MergeConfig, NumericError
from modelmerger.engine.compiling import compile_function
from safetensors.torch import load_file

needs_a_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="needs a C++ compiler: Debian's g++")
OF_STRATEGY = """
import torch
from modelmerger import Traits, hookimpl

traits = Traits(models=(2, 2))
compiled = []

@hookimpl
def merge_tensor(tensors, weights):
    compiled.append(torch.compiler.is_compiling())
    return torch.tanh(tensors[0] * weights[0]) + tensors[1]
"""


@pytest.fixture(autouse=True)
def without_leftovers() -> None:
    torch._dynamo.reset()


def merged(config: dict[str, Any], output: Path, **options: Any) -> dict[str, torch.Tensor]:
    modelmerger.merge(MergeConfig(**{**config, "output_path": str(output), "options": options}))
    return load_file(output / "model.safetensors")


def ulps(a: torch.Tensor, b: torch.Tensor) -> int:
    """How many bfloat16 numbers lie between two of one sign, at most."""
    return int((a.view(torch.int16).int() - b.view(torch.int16).int()).abs().max())


@needs_a_compiler
def test_compiled_sums_agree_to_a_unit_in_the_last_place(
    models: SimpleNamespace, config: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    config |= {"strategy": "task_arithmetic", "base_model": str(models.base)}
    eager = merged(config, models.folder / "eager", scaling_factor=0.7)
    torch._dynamo.utils.counters.clear()
    fast = merged(config, models.folder / "compiled", scaling_factor=0.7, torch_compile=True)

    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] > 0
    assert max(ulps(fast[name], eager[name]) for name in eager) <= 1
    assert not [record for record in caplog.records if record.name == "modelmerger"]


def test_the_hook_of_a_strategy_is_what_is_compiled(
    models: SimpleNamespace,
    config: dict[str, Any],
    distribution: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Through a compiler of torch that makes no machine code."""
    install(distribution, [("strategy", "bent", OF_STRATEGY)])
    compile_function = torch.compile
    monkeypatch.setattr(torch, "compile", lambda function, **_: compile_function(function, backend="eager"))
    config["strategy"] = "bent"
    eager = merged(config, models.folder / "eager")
    torch._dynamo.utils.counters.clear()
    fast = merged(config, models.folder / "compiled", torch_compile=True)

    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] > 0
    assert all(torch.equal(fast[name], eager[name]) for name in eager)


def test_without_a_compiler_the_merge_is_the_eager_one_and_that_is_said_once(
    models: SimpleNamespace, config: dict[str, Any], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: Any, **__: Any) -> Callable[..., Any]:
        def call(*_: Any, **__: Any) -> Any:
            raise RuntimeError("InvalidCxxCompiler: no working C++ compiler found")

        return call

    eager = merged(config, models.folder / "eager")
    monkeypatch.setattr(torch, "compile", broken)
    with caplog.at_level(logging.WARNING, "modelmerger"):
        fast = merged(config, models.folder / "compiled", torch_compile=True)

    assert all(torch.equal(fast[name], eager[name]) for name in eager)
    assert [record.message for record in caplog.records] == [
        "torch_compile: the merge goes on without it: RuntimeError: InvalidCxxCompiler: no working C++ compiler found"
    ]


def test_what_the_function_itself_raises_is_no_fault_of_the_compiler(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refusing(value: int) -> int:
        if value < 0:
            raise NumericError("below zero")
        return value

    calls = []
    monkeypatch.setattr(torch, "compile", lambda f, **_: lambda value: (calls.append(value), f(value))[1])
    function = compile_function(refusing)

    with pytest.raises(NumericError, match="below zero"):
        function(-1)
    assert function(3) == 3
    assert calls == [-1, 3]
    assert not [record for record in caplog.records if record.name == "modelmerger"]


def test_compiled_and_eager_merges_are_two_plans(models: SimpleNamespace, config: dict[str, Any]) -> None:
    """So that none goes on where the other stopped."""
    digests = set()
    for on in (True, False):
        config["options"] = {"torch_compile": on}
        digests.add(modelmerger.ModelMerger(MergeConfig(**config)).plan().digest)

    assert len(digests) == 2
