"""Many small things, none of which is too large by itself: each sum has a limit, and what is beyond it is refused at once.

The commands run in a process of their own, whose memory and processor time are limited.
"""

import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from conftest import write_model
from inputs.refusing import weighted
from modelmerger import inputs as rooms
from modelmerger.inputs import loading
from modelmerger.inputs.safetensors_header import parsing

Command = Callable[..., SimpleNamespace]
PROCESSOR_SECONDS = 20
"""For all of `check`, of which a refusal takes a tenth."""
ADDRESSES = 3 << 30
"""Bytes, most of them of libraries."""


def checked(path: Path) -> subprocess.CompletedProcess[str]:
    """`modelmerger check` under limits."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (ADDRESSES, ADDRESSES))
        resource.setrlimit(resource.RLIMIT_CPU, (PROCESSOR_SECONDS, PROCESSOR_SECONDS))

    command = [sys.executable, "-m", "modelmerger", "check", str(path)]
    return subprocess.run(command, capture_output=True, text=True, preexec_fn=limit, check=False)


def config_of(models: SimpleNamespace) -> Path:
    path: Path = models.folder / "merge.json"
    path.write_text(json.dumps(weighted(models.a, models.b)))
    return path


DOCUMENTS = {
    "brackets in the config": ("config.json", b"[" * (16 << 20), "holds more than 500,000 values"),
    "commas in the config": ("config.json", b'{"a": [' + b"0," * (8 << 20) + b"0]}", "is "),
    "brackets in the index": ("model.safetensors.index.json", b"[" * (64 << 20), "holds more than 1,000,000 values"),
    "entries of the index": (
        "model.safetensors.index.json",
        b'{"weight_map": {' + b",".join(b'"t%d":"m.safetensors"' % i for i in range(1_100_000)) + b"}}",
        "holds more than 1,000,000 values",
    ),
    "a larger index": ("model.safetensors.index.json", None, "more than the 134,217,728 allowed"),
}


@pytest.mark.parametrize(("name", "content", "words"), DOCUMENTS.values(), ids=DOCUMENTS)
def test_a_document_of_too_many_parts_is_refused(
    models: SimpleNamespace, name: str, content: bytes | None, words: str
) -> None:
    if content is None:
        (models.b / name).touch()
        os.truncate(models.b / name, 200 << 20)
    else:
        (models.b / name).write_bytes(content)

    result = checked(config_of(models))

    assert result.returncode == 3, result.stderr
    assert words in result.stderr
    assert str(name) in result.stderr


def test_a_header_of_more_tensors_than_any_model_has_is_refused(models: SimpleNamespace) -> None:
    entry = b'"t%d":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}'
    header = b"{" + b",".join(entry % number for number in range(1_000_001)) + b"}"
    (models.b / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)

    result = checked(config_of(models))

    assert result.returncode == 3
    assert "the header has more than the 1,000,000 tensors that are allowed" in result.stderr


def test_tensors_whose_entries_are_spelled_with_escapes_are_counted_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parsing, "MOST_TENSORS", 10)
    entry = '"t%d":{"dtype":"F32","shape":[0],"data\\u005foffsets":[0,0]}'
    header = "{" + ",".join(entry % number for number in range(12)) + "}"

    with pytest.raises(parsing.HeaderError, match="more than the 10 tensors"):
        parsing.parse_header(header.encode(), 0)


@pytest.mark.parametrize("where", ["", "licenses"])
def test_a_directory_of_more_entries_than_any_model_has_is_refused(
    models: SimpleNamespace, command: Command, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    monkeypatch.setattr(loading, "MOST_ENTRIES", 50)
    (models.b / where).mkdir(exist_ok=True)
    for number in range(60):
        (models.b / where / f"{number}").mkdir()

    result = command("check", config_of(models))

    assert result.status == 3
    assert "holds more than 50 files and folders, so it is no model's" in result.err


def test_a_directory_is_not_read_beyond_its_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor sorted: of a million entries, a few thousand are looked at."""
    seen = 0

    class Endless:
        def __enter__(self) -> Any:
            return self

        def __exit__(self, *_: object) -> None: ...

        def __iter__(self) -> Any:
            return self

        def __next__(self) -> Any:
            nonlocal seen
            seen += 1
            return SimpleNamespace(name=str(seen))

    monkeypatch.setattr(os, "scandir", lambda _: Endless())

    with pytest.raises(rooms.loading.InputError, match="holds more than 20,000 files and folders"):
        loading.list_directory(tmp_path)
    assert seen == 20_001


@pytest.mark.parametrize("where", ["", "licenses/{}"])
def test_thousands_of_licences_alike_are_refused(models: SimpleNamespace, where: str) -> None:
    """Their names agree as far as they are kept, and were numbered in quadratic time."""
    for number in range(1_500):
        folder = models.b / where.format(number % 30)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"LICENSE.{'a' * 60}{number}").touch()

    result = checked(config_of(models))

    assert result.returncode == 3
    assert "licence files" in result.stderr
    assert "at most 1,000" in result.stderr


def test_what_is_below_the_limits_is_taken(models: SimpleNamespace, command: Command) -> None:
    write_model(models.b, models.tensors["b"], {"model_type": "llama", "a": list(range(100_000))})
    for number in range(900):
        (models.b / f"LICENSE.{'a' * 60}{number}").touch()
    for number in range(2_000):
        (models.b / f"note-{number}").touch()

    assert command("check", config_of(models)).status == 0
