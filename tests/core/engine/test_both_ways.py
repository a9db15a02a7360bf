"""The same bytes whichever way they go, and the disk read once where what was measured is kept."""

import errno
import hashlib
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from blocks import set_block
from modelmerger import InputError, MergeConfig, merge
from modelmerger.engine.reading.kept import KeptInputs
from modelmerger.inputs.direct.read_ahead import Piece, ReadAhead
from modelmerger.inputs.files import InputFiles
from modelmerger.output.staged_files import StagedFiles
from safetensors.torch import save_file

SHAPES = {"large.weight": (1100, 1024), "odd": (777,), "row.weight": (3, 5), "second.weight": (900, 1001)}


@pytest.fixture
def models(tmp_path: Path) -> list[str]:
    """Two models of a few MB, whose data begins at no multiple of anything but 8."""
    found = []
    for number in range(2):
        torch.manual_seed(number)
        folder = tmp_path / f"model-{number}"
        folder.mkdir()
        tensors = {name: torch.randn(shape).to(torch.bfloat16) for name, shape in SHAPES.items()}
        save_file(tensors, folder / "model.safetensors", {"format": "pt"})
        (folder / "config.json").write_text('{"model_type": "llama", "architectures": ["LlamaForCausalLM"]}')
        found.append(str(folder))
    return found


def merged(models: list[str], output: Path, strategy: str, **options: Any) -> dict[str, str]:
    """The SHA-256 of each file of weights, and of the manifest."""
    config = {"strategy": strategy, "models": [{"path": path} for path in models], "output_path": str(output)}
    merge(MergeConfig.from_dict(config | {"options": {"max_shard_size": 3_000_000, "check_loading": False} | options}))
    files = [*output.glob("*.safetensors"), output / "modelmerger.json"]
    found = {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}
    shutil.rmtree(output)
    return found


@pytest.mark.parametrize("strategy", ["weighted", "slerp", "geometric_median"])
def test_no_byte_depends_on_the_way(models: list[str], tmp_path: Path, strategy: str) -> None:
    ways: list[dict[str, Any]] = [{"io": "buffered"}, {"io": "direct"}, {"io": "direct", "memory": 0}, {}]
    ways += [{"io": "direct", "memory": "5MB"}, {"io": "direct", "low_memory_mode": True}]
    ways += [{"io": "direct", "parallel_loading": False}, {"io": "direct", "sequential_loading": True}]
    found = [merged(models, tmp_path / "merged", strategy, **way) for way in ways]
    weights = [{name: digest for name, digest in one.items() if name != "modelmerger.json"} for one in found]
    assert len(weights[0]) > 1
    assert all(one == weights[0] for one in weights)
    assert all(one == found[0] for one in found[1:5])  # neither option is in the manifest


@pytest.mark.parametrize(("memory", "times"), [("512MiB", 1), (0, 2), ("4MB", None)])
def test_what_is_measured_is_read_once_where_it_fits(
    models: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, memory: int | str, times: int | None
) -> None:
    """times: how often each byte is read; None: of some tensors once, of others twice."""
    read, reading = [0], InputFiles.read

    def counted(self: InputFiles, file: Any, offset: int, buffer: memoryview) -> None:
        read[0] += len(buffer)
        reading(self, file, offset, buffer)

    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})
    monkeypatch.setattr(InputFiles, "read", counted)
    monkeypatch.setattr("modelmerger.planning.make_plan.way_of", lambda *_: "direct")
    merged(models, tmp_path / "merged", "slerp", memory=memory)

    stored = 2 * sum(2 * torch.Size(shape).numel() for shape in SHAPES.values())
    assert stored < read[0] < 2 * stored if times is None else read[0] == times * stored


def test_what_comes_from_the_page_cache_is_not_kept(
    models: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("modelmerger.planning.make_plan.way_of", lambda *_: "cached")
    monkeypatch.setattr(KeptInputs, "measured", lambda *_: pytest.fail("nothing is kept"))
    merged(models, tmp_path / "merged", "slerp")


def test_nothing_stays_when_all_is_merged(models: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[KeptInputs] = []
    start = KeptInputs.__attrs_init__ if hasattr(KeptInputs, "__attrs_init__") else KeptInputs.__init__

    def noted(self: KeptInputs, *arguments: Any) -> None:
        start(self, *arguments)
        made.append(self)

    monkeypatch.setattr(KeptInputs, "__init__", noted)
    monkeypatch.setattr("modelmerger.planning.make_plan.way_of", lambda *_: "direct")
    merged(models, tmp_path / "merged", "slerp")

    (kept,) = [one for one in made if one._free]
    assert not kept._blocks
    assert not kept._held


@pytest.mark.parametrize("io", ["buffered", "direct"])
def test_a_read_error_belongs_to_the_block_that_reads_and_not_to_the_one_before_it(
    models: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, io: str
) -> None:
    """What is read ahead for the next block fails while a block is made, which is done all the same."""
    set_block(monkeypatch, 1 << 20)
    reads = os.preadv

    def broken(descriptor: int, buffers: Any, offset: int, *flags: int) -> int:
        if offset >= (2 << 20) + 4096:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return reads(descriptor, buffers, offset, *flags)

    config = {"strategy": "weighted", "models": [{"path": path} for path in models]}
    options = {"io": io, "low_memory_mode": True, "check_loading": False}  # so one worker
    expected = merged(models, tmp_path / "merged", "weighted", **options, max_shard_size="1GB")
    config |= {"output_path": str(tmp_path / "merged"), "options": options | {"max_shard_size": "1GB"}}
    monkeypatch.setattr(os, "preadv", broken)
    with pytest.raises(InputError, match="cannot be read: Input/output error"):
        merge(MergeConfig.from_dict(config))
    monkeypatch.setattr(os, "preadv", reads)

    report = merge(MergeConfig.from_dict(config))

    assert report.bytes_reused == 2 << 20
    found = hashlib.sha256((tmp_path / "merged/model.safetensors").read_bytes()).hexdigest()
    assert found == expected["model.safetensors"]


@pytest.mark.parametrize("workers", [1, 2])
def test_the_next_block_is_fetched_before_this_one_is_written(
    models: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    set_block(monkeypatch, 1 << 20)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(workers)))
    begun: list[int] = []
    ahead: dict[int, int] = {}
    begin, write = ReadAhead._begin, StagedFiles.write

    def beginning(self: ReadAhead, piece: Piece) -> Any:
        begun.append(piece.begin)
        return begin(self, piece)

    def writing(self: StagedFiles, handle: int, file: int, content: memoryview, offset: int) -> None:
        ahead[offset >> 20] = max(begun)
        write(self, handle, file, content, offset)

    monkeypatch.setattr(ReadAhead, "_begin", beginning)
    monkeypatch.setattr(StagedFiles, "write", writing)
    merged(models, tmp_path / "merged", "weighted", io="direct", max_shard_size="1GB")

    last = max(ahead)
    assert last >= 3
    for block in range(last):
        assert ahead[block] >= (block + 1 << 20) - 4096  # which is where the inputs of the next block begin


def test_an_output_system_that_refuses_direct_writes_gets_buffered_ones(
    models: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:

    opens = os.open

    def opening(path: Any, flags: int, *more: Any, **named: Any) -> int:
        if flags & os.O_DIRECT:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        return opens(path, flags, *more, **named)

    expected = merged(models, tmp_path / "merged", "weighted", io="buffered")
    monkeypatch.setattr(os, "open", opening)
    assert merged(models, tmp_path / "merged", "weighted", io="direct") == expected
