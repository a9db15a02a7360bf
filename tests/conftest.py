"""Small checkpoints, configs, installed distributions that are not, and the command line in this process."""

import gc
import importlib
import itertools
import json
import os
import re
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import hypothesis
import pytest
import torch
from safetensors.torch import save_file

torch.set_num_threads(1)
hypothesis.settings.register_profile(
    "repeatable", derandomize=True, deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)  # what a test takes is no matter of the machine's other work
hypothesis.settings.load_profile("repeatable")  # the same examples in every run; --hypothesis-profile=default: new ones
os.environ["HF_HUB_OFFLINE"] = "1"  # before huggingface_hub is imported: no test may reach the Hub
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # or every process that a test starts compiles the package anew

SHAPES = {
    "model.embed_tokens.weight": (24, 16),
    "model.layers.0.mlp.weight": (40, 16),
    "model.layers.0.norm.weight": (16,),
    "model.layers.1.mlp.weight": (40, 16),
    "model.layers.1.conv.weight": (4, 3, 2, 5),
    "model.norm.weight": (16,),
    "model.temperature": (),
}
CONFIG = {  # which names no class: whether one loads these tensors is a question of other tests
    "model_type": "llama",
    "hidden_size": 16,
    "vocab_size": 24,
    "tie_word_embeddings": True,
    "torch_dtype": "bfloat16",
}


BLAMED = re.compile(r"\w+ '[\w-]+' from modelmerger \d")
"""What no error with exit status 7 says: a plugin that comes with the package is never to blame for what it was given."""


def pytest_configure(config: pytest.Config) -> None:
    """Folders of tests have names as short with several workers as with one: a line about a file has an end."""
    if hasattr(config, "workerinput"):
        place = Path(config.option.basetemp)  # …/popen-gw0
        config.option.basetemp = str(place.with_name(place.name.removeprefix("popen-gw")))


def random_tensors(
    seed: int,
    dtype: torch.dtype = torch.bfloat16,
    shapes: Mapping[str, Sequence[int]] = SHAPES,
    near: Mapping[str, torch.Tensor] | None = None,
) -> dict[str, torch.Tensor]:
    """Normal numbers of the size that weights have; with `near`, small changes to those."""
    generator = torch.Generator().manual_seed(seed)
    return {
        name: (torch.randn(tuple(shape), generator=generator) * 0.02 + (near[name].float() if near else 0)).to(dtype)
        for name, shape in shapes.items()
    }


def write_model(
    directory: Path,
    tensors: Mapping[str, torch.Tensor],
    config: Mapping[str, Any] | None = CONFIG,
    shards: int = 1,
) -> Path:
    """A model directory: safetensors weights in one file or in shards with an index, and config.json unless it is None."""
    directory.mkdir(parents=True, exist_ok=True)
    names = list(tensors)
    if shards == 1:
        save_file(dict(tensors), directory / "model.safetensors", metadata={"format": "pt"})
    else:
        files = [f"model-{i + 1:05d}-of-{shards:05d}.safetensors" for i in range(shards)]
        placed = {name: files[i % shards] for i, name in enumerate(names)}
        for file in files:
            save_file({n: tensors[n] for n in names if placed[n] == file}, directory / file, metadata={"format": "pt"})
        index = {"metadata": {}, "weight_map": placed}
        (directory / "model.safetensors.index.json").write_text(json.dumps(index))
    if config is not None:
        (directory / "config.json").write_text(json.dumps(config))
    return directory


@pytest.fixture
def models(tmp_path: Path) -> SimpleNamespace:
    """A base, two models tuned from it (`a`, `b`), their tensors, and a folder to merge into."""
    base = random_tensors(0)
    tensors = {"base": base, "a": random_tensors(1, near=base), "b": random_tensors(2, near=base)}
    paths = {name: write_model(tmp_path / name, values) for name, values in tensors.items()}
    return SimpleNamespace(folder=tmp_path, output=tmp_path / "merged", tensors=tensors, **paths)


@pytest.fixture
def config(models: SimpleNamespace) -> dict[str, Any]:
    """A weighted merge of `a` and `b`, as plain data."""
    return {
        "strategy": "weighted",
        "models": [{"path": str(models.a), "weight": 0.6}, {"path": str(models.b), "weight": 0.4}],
        "output_path": str(models.output),
    }


def command_line(*arguments: object) -> int:
    """Runs the command line in this process; its exit status."""
    from modelmerger.cli.process import main

    return main([str(argument) for argument in arguments])


@pytest.fixture
def command(capfd: pytest.CaptureFixture[str]) -> Callable[..., SimpleNamespace]:
    """`command("merge", path)` runs the command line in this process; the result has status, out and err."""

    def run(*arguments: object) -> SimpleNamespace:
        capfd.readouterr()
        status = command_line(*arguments)
        out, err = capfd.readouterr()
        assert status != 7 or not BLAMED.search(err), f"an input's fault is put on a built-in plugin: {err}"
        return SimpleNamespace(status=status, out=out, err=err)

    return run


FSYNC = os.fsync


@pytest.fixture(autouse=True, scope="session")
def no_power_fails() -> Iterator[None]:
    """Nothing in this process waits for the disk: a merge would, seven times. See `power_may_fail`."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(os, "fsync", lambda descriptor: os.fstat(descriptor) and None)
        yield


@pytest.fixture
def power_may_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is to reach the disk does."""
    monkeypatch.setattr(os, "fsync", FSYNC)


@pytest.fixture
def tokenizers_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tokenizers and chat templates run in this process, without limits: processes of theirs are not what is tested."""
    from modelmerger.hooks.inquiries.child import Call, NoAnswerError

    def called(call: Call) -> Any:
        module, _, name = call.function.partition(":")
        try:
            return json.loads(json.dumps(getattr(importlib.import_module(module), name)(call.argument)))
        except Exception as error:
            raise NoAnswerError(f"{type(error).__name__}: {error}") from error

    for module in ("rendering", "tokenizing"):
        monkeypatch.setattr(f"modelmerger.validation.{module}.called", called)


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Ctrl-C interrupts this process and its children, also where the shell started the tests with SIGINT ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def distribution(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Makes a distribution that looks installed: a `*.dist-info` folder and modules on the import path."""

    def make(name: str, version: str, entry_points: str, **modules: str) -> Path:
        site = tmp_path / f"site-{name}"
        info = site / f"{name.replace('-', '_')}-{version}.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        (info / "entry_points.txt").write_text(entry_points)
        for module, source in modules.items():
            (site / f"{module}.py").write_text(source)
        monkeypatch.syspath_prepend(str(site))
        return site

    return make


def pytest_sessionstart() -> None:
    """With MODELMERGER_TESTED_FROM, what is tested must come from there (a built wheel) and not from the source folders."""
    if wanted := os.environ.get("MODELMERGER_TESTED_FROM"):
        import modelmerger

        home = Path(modelmerger.__file__).resolve()
        assert home.is_relative_to(Path(wanted).resolve()), f"modelmerger is tested from {home}, not from {wanted}"


def pytest_collection_finish() -> None:
    # From here on tests write modules anew within a second, which is too soon for bytecode to be told apart.
    sys.dont_write_bytecode = True  # not before: tests, of which pytest makes bytecode of its own, are compiled once
    spare_collector()


def pytest_runtest_logfinish() -> None:
    if next(_ended) % 250 == 0:
        spare_collector()


def spare_collector() -> None:
    """What is there by now, torch and transformers above all, lives on: looking through it was a fifth of all tests."""
    gc.collect()
    gc.freeze()


_ended = itertools.count(1)

ELSEWHERE = ("Ray is not installed", "lm-eval is not installed", "lm-eval is installed")
"""Why tests are skipped of extras that are too large for the environment of the others (`make test-ray`, `make test-lm-eval`)."""


def _skipped(reporter: Any) -> list[Any]:
    """The tests that were skipped for want of something that CI has to install."""
    return [one for one in reporter.stats.get("skipped", ()) if not any(why in str(one.longrepr) for why in ELSEWHERE)]


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """In CI nothing may be skipped: what a test needs, CI installs."""
    if os.environ.get("CI") and (skipped := _skipped(terminalreporter)):
        terminalreporter.section("skipped in CI")
        terminalreporter.write_line(f"{len(skipped)} tests were skipped; install what they name")


def pytest_sessionfinish(session: pytest.Session) -> None:
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if os.environ.get("CI") and reporter and _skipped(reporter) and session.exitstatus == 0:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def directory_state(path: Path) -> dict[str, bytes] | None:
    """What a path holds, byte for byte; None where it is absent."""
    if not os.path.lexists(path):
        return None
    if not path.is_dir():
        return {"": path.read_bytes()}
    return {p.relative_to(path).as_posix(): p.read_bytes() for p in sorted(path.rglob("*")) if p.is_file()}
