"""What the pages take for granted: the models that they name, and the plugins that they write, installed as readers would install them."""

import itertools
import json
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from modelmerger import Problem
from safetensors.torch import load_file, save_file

ROOT = Path(__file__).parents[2]
MODELS = ("models/base", "models/chat", "models/formal")
EXTENDED = "models/extended"
DIALECTS = tuple(f"examples/dialects/models/{name}" for name in ("base", "egyptian", "gulf", "levantine", "maghrebi"))
RUNS = ("run", "run-a", "run-b")
PACKAGE = "my_package"


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The models that the pages name: the Arabic base model that ships, and near copies of it; and folders of trainers."""
    folder = tmp_path_factory.mktemp("library")
    base = ROOT / "examples/dialects/base"
    weights = load_file(base / "model.safetensors")
    for number, name in enumerate((*MODELS, *DIALECTS)):
        shutil.copytree(base, folder / name)
        generator = torch.Generator().manual_seed(number)
        moved = {k: (v + torch.randn(v.shape, generator=generator) * 1e-3).to(v.dtype) for k, v in weights.items()}
        save_file(moved, folder / name / "model.safetensors", metadata={"format": "pt"})
    extend(folder / MODELS[-1], folder / EXTENDED)
    for run, step in itertools.product(RUNS, range(500, 5500, 500)):
        (folder / run / f"checkpoint-{step}").mkdir(parents=True)
    return folder


def extend(source: Path, target: Path) -> None:
    """A copy of a model with two tokens more."""
    shutil.copytree(source, target)
    weights = load_file(source / "model.safetensors")
    rows = weights["model.embed_tokens.weight"]
    weights["model.embed_tokens.weight"] = torch.cat([rows, rows[:2]])
    save_file(weights, target / "model.safetensors", metadata={"format": "pt"})
    tokenizer = json.loads((target / "tokenizer.json").read_bytes())
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized", "special"), False)
    tokenizer["added_tokens"] += [
        {"id": len(rows) + i, "content": word, **flags} for i, word in enumerate(("إزيك", "شلونك"))
    ]
    (target / "tokenizer.json").write_text(json.dumps(tokenizer))
    config = json.loads((target / "config.json").read_bytes())
    (target / "config.json").write_text(json.dumps({**config, "vocab_size": len(rows) + 2}))


@pytest.fixture
def place(library: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A current directory in which the pages' paths exist."""
    for name in (*MODELS, EXTENDED, *DIALECTS):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).symlink_to(library / name)
    for run in RUNS:
        (tmp_path / run).symlink_to(library / run)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def untried(monkeypatch: pytest.MonkeyPatch) -> None:
    """`plan` tries no merge out, each of which takes a process that imports torch: one page does that for all."""
    found = Problem("nothing is tried out in this test", severity="note")
    monkeypatch.setattr("modelmerger.trial.try_out", lambda _: found)


@pytest.fixture
def install_plugins(distribution: Callable[..., Path]) -> Iterator[Callable[[Path], None]]:
    """Makes the entry points of a page, and the modules that begin with their own path (`# my_package/median.py`)."""

    def install(page: Path) -> None:
        text = page.read_text()
        groups = re.findall(r'^\[project\.entry-points\."([\w.]+)"\]\n((?:\w+ = "[\w.]+"\n)+)', text, re.MULTILINE)
        if not groups:
            return
        entries = "\n".join(f"[{group}]\n{lines.replace(chr(34), '')}" for group, lines in groups)
        site = distribution("my-package", "1.0", entries)
        (site / PACKAGE).mkdir()
        for path, source in re.findall(
            rf"^```python\n# ({PACKAGE}/\w+\.py)\n(.*?)^```", text, re.MULTILINE | re.DOTALL
        ):
            (site / path).write_text(source)

    yield install
    for name in [name for name in sys.modules if name.partition(".")[0] == PACKAGE]:
        del sys.modules[name]
