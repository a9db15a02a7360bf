"""Many files and few descriptors; many problems and few lines."""

import json
import resource
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

from conftest import command_line, random_tensors, write_model
from modelmerger import verify

from tests.faults.stopping import ended, fork

SHARDS = 500


def test_500_shards_are_merged_with_64_open_files(sharded: SimpleNamespace, config_file: Callable[..., Path]) -> None:
    """D4: inputs and output have 500 shards each."""
    shapes = {f"model.layers.{number}.weight": (2, 8) for number in range(SHARDS)}
    for seed, path in enumerate((sharded.a, sharded.b)):
        (path / "model.safetensors").unlink()
        write_model(path, random_tensors(seed, shapes=shapes), shards=SHARDS)
    path, said = config_file(32, low_memory_mode=False), sharded.folder / "said"

    def limited() -> int:
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
        return command_line("merge", path) or command_line("verify", sharded.output)

    assert ended(fork(limited, said)) == 0, said.read_text()
    assert len(list(sharded.output.glob("*.safetensors"))) == SHARDS
    verify(sharded.output)


def test_many_problems_are_twenty_lines_and_a_count(sharded: SimpleNamespace, refused: Callable[..., str]) -> None:
    """D5: of at most 300 characters, however long the names are."""
    config = sharded.config() | {"models": [{"path": f"./{'x' * 400}{number}"} for number in range(30)]}
    file = sharded.folder / "many.json"
    file.write_text(json.dumps(config))

    lines = refused(3, "merge", file).splitlines()

    assert len(lines) == 21
    assert lines[-1] == "… and 10 more"
    assert all(line.startswith("error: ") for line in lines[:-1])
