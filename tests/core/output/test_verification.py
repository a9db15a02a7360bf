import json
import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from conftest import write_model
from modelmerger import InputError, MergeConfig, merge
from modelmerger.output.digests import pieces_of_bytes
from modelmerger.output.manifest import FILE, file_entry, pieces_of
from modelmerger.output.verification import verify
from modelmerger.values.layout import BLOCK
from modelmerger.values.work.block_record import Piece
from safetensors.torch import load_file

from tests.inputs.watching import watched


@pytest.fixture
def output(models: SimpleNamespace, config: dict[str, Any]) -> Path:
    merge(MergeConfig(**config))
    return Path(models.output)


def change_manifest(output: Path, change: Callable[[dict[str, Any]], object]) -> None:
    manifest = json.loads((output / FILE).read_text())
    change(manifest)
    (output / FILE).write_text(json.dumps(manifest))


def problems(output: Path) -> list[str]:
    with pytest.raises(InputError) as raised:
        verify(output)
    return [str(problem) for problem in raised.value.problems]


def test_a_published_output_is_sound(output: Path) -> None:
    found = verify(output)

    assert found.files == len([name for name in os.listdir(output) if name not in (FILE, "README.md")])
    assert str(found).endswith("as published")


@pytest.mark.parametrize("name", ["../secret", "licenses/../../secret", "{folder}/secret"])
def test_a_manifest_that_leads_out_is_refused_and_nothing_there_is_opened(output: Path, name: str) -> None:
    secret = output.parent / "secret"
    secret.write_text("x")
    name = name.format(folder=output.parent)
    change_manifest(output, lambda m: m["files"].update({name: file_entry(pieces_of_bytes(b"x"))}))

    with watched() as seen:
        (problem,) = problems(output)

    assert "is not the manifest of a merge" in problem
    assert [path for path in seen.opened if not path.isdigit()] == [str(output / FILE)]


def test_links_that_lead_out_are_named_and_nothing_there_is_opened(output: Path) -> None:
    outside = output.parent / "outside"
    outside.mkdir()
    (outside / "LICENSE").write_text("x")
    (output / "licenses").symlink_to(outside)
    entry = file_entry(pieces_of_bytes(b"x"))
    change_manifest(output, lambda m: m["files"].update({"licenses/LICENSE": entry}))

    with watched() as seen:
        found = problems(output)

    assert any("is behind a symbolic link" in problem for problem in found)
    assert any(f"{output}/licenses: is not part of the merge" in problem for problem in found)
    assert str(output / "config.json") in seen.opened
    assert [path for path in seen.opened if Path(path).name == "LICENSE"] == []


@pytest.mark.parametrize(
    "change",
    [
        lambda entry: entry.update(file_entry([])),
        lambda entry: entry.update(file_entry([Piece(0, "0" * 64), *pieces_of(entry)])),
        lambda entry: entry.update(file_entry(pieces_of(entry)[:-1])),
        lambda entry: entry.update(file_entry([Piece(entry["size"], "0" * 64)])),
    ],
)
def test_a_manifest_that_says_something_else_is_a_difference(
    output: Path, change: Callable[[dict[str, Any]], object]
) -> None:
    change_manifest(output, lambda manifest: change(manifest["files"]["model.safetensors"]))

    assert all(f"{output}/model.safetensors" in problem for problem in problems(output))


def test_a_directory_without_a_manifest_is_refused(tmp_path: Path) -> None:
    (problem,) = problems(tmp_path)
    assert f"has no {FILE}" in problem
    (problem,) = problems(tmp_path / "nothing")
    assert "is not a directory" in problem


def test_a_manifest_that_is_a_link_or_fifo_is_refused(output: Path) -> None:
    (output / FILE).rename(output.parent / "manifest")
    (output / FILE).symlink_to(output.parent / "manifest")
    assert "cannot be opened" in problems(output)[0]
    (output / FILE).unlink()
    os.mkfifo(output / FILE)
    assert "is not a regular file" in problems(output)[0]


def test_a_file_that_cannot_be_read_is_a_sentence(output: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> bytes:
        raise OSError(5, os.strerror(5))

    monkeypatch.setattr(os, "preadv", broken)

    assert f"{output}/config.json: cannot be read: Input/output error." in problems(output)


def test_each_of_several_damaged_tensors_is_named_in_every_block(tmp_path: Path) -> None:
    """Tensors that fill a block alone, share one, and lie across a border."""
    tensors = {
        "a": torch.ones(BLOCK // 2 + 5000, dtype=torch.bfloat16),
        "b": torch.ones(300, dtype=torch.bfloat16),
        "c": torch.ones(BLOCK, dtype=torch.bfloat16),
    }
    source = write_model(tmp_path / "source", tensors, config=None)
    output = tmp_path / "merged"
    merge(MergeConfig(strategy="weighted", models=[{"path": str(source)}], output_path=str(output)))
    weights = output / "model.safetensors"
    assert all(torch.equal(tensor, tensors[name]) for name, tensor in load_file(weights).items())
    verify(output)
    sound = weights.read_bytes()
    length = 8 + int.from_bytes(sound[:8], "little")
    header = json.loads(sound[8:length])
    begin, end = ({name: length + header[name]["data_offsets"][i] for name in tensors} for i in (0, 1))

    for damaged, expected in {
        (begin["a"],): ["a"],
        (end["a"] - 1,): ["a"],
        (begin["b"],): ["b"],
        (begin["c"],): ["c"],
        (2 * BLOCK - 1, 2 * BLOCK): ["c"],
        (end["c"] - 1,): ["c"],
        (begin["a"], end["b"] - 1, end["c"] - 1): ["a", "b", "c"],
    }.items():
        content = bytearray(sound)
        for offset in damaged:
            content[offset] ^= 0x10
        weights.write_bytes(content)
        assert [problem.split(": ")[1] for problem in problems(output)] == expected
