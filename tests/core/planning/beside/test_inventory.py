"""What becomes of every file of every source."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from modelmerger import Donor, FileIdentity, FilesBeside
from modelmerger.inputs.loading import identify_beside
from modelmerger.planning.beside import inventory
from modelmerger.planning.beside.inventory import taken_stock


def source(directory: Path, name: str, files: dict[str, bytes]) -> Any:
    for path, content in files.items():
        (directory / name / path).parent.mkdir(parents=True, exist_ok=True)
        (directory / name / path).write_bytes(content)
    weights = (identified(directory / name, "model.safetensors"),)
    return SimpleNamespace(name=name, merge=None, files=weights, donor=Donor(directory / name))


def identified(directory: Path, name: str) -> FileIdentity:
    return identify_beside(directory, name, 1 << 20)


def test_every_file_is_copied_made_anew_or_left_behind(tmp_path: Path) -> None:
    a = source(
        tmp_path,
        "a",
        {
            "model.safetensors": b"a",
            "config.json": b"{}",
            "vocab.txt": b"same",
            "1_Pooling/config.json": b"{}",
            "1_Pooling/extra.bin": b"",
            "modeling_x.py": b"",
            "runs/1/events": b"",
            ".git/HEAD": b"",
        },
    )
    b = source(
        tmp_path,
        "b",
        {"model.safetensors": b"b", "config.json": b"[]", "vocab.txt": b"same", "1_Pooling/config.json": b"[]"},
    )
    files = {
        "config.json": b"anew",
        "vocab.txt": identified(tmp_path / "a", "vocab.txt"),
        "1_Pooling/config.json": identified(tmp_path / "a", "1_Pooling/config.json"),
    }

    assert taken_stock(files, {"model.safetensors.index.json"}, [a, b]) == FilesBeside(
        copied={"vocab.txt": "a", "1_Pooling/config.json": "a"},
        made=("config.json", "model.safetensors.index.json"),
        left={
            "a": (".git/", "1_Pooling/extra.bin", "modeling_x.py", "runs/"),
            "b": ("1_Pooling/",),  # of another content, and all of the folder
        },
    )


def test_a_file_under_another_name_is_copied_and_the_models_of_a_merge_are_sources(tmp_path: Path) -> None:
    inner = source(tmp_path, "inner", {"model.safetensors": b"", "LICENSE": b"free", "x": b""})
    merged = SimpleNamespace(name="soup", merge=object(), sources=[inner], files=inner.files, donor=inner.donor)
    files = {"licenses/inner/LICENSE": identified(tmp_path / "inner", "LICENSE")}

    beside = taken_stock(files, (), [merged])  # type: ignore[list-item]

    assert beside == FilesBeside({"licenses/inner/LICENSE": "inner"}, (), {"inner": ("x",)})


def test_links_are_files_where_they_lead(tmp_path: Path) -> None:
    """As in the Hub's cache, where every file of a snapshot is a link to a blob."""
    blobs, snapshot = tmp_path / "models--o--n/blobs", tmp_path / "models--o--n/snapshots/1"
    for folder in (blobs, snapshot):
        folder.mkdir(parents=True)
    for name in ("model.safetensors", "vocab.txt", "left.exe"):
        (blobs / f"blob-of-{name}").write_text(name)
        (snapshot / name).symlink_to(blobs / f"blob-of-{name}")
    (snapshot / "dangling").symlink_to("nothing")
    weights = (identified(snapshot, "model.safetensors"),)
    model: Any = SimpleNamespace(name="n", merge=None, files=weights, donor=Donor(snapshot))

    beside = taken_stock({"vocab.txt": identified(snapshot, "vocab.txt")}, (), [model])

    assert beside == FilesBeside({"vocab.txt": "n"}, (), {"n": ("dangling", "left.exe")})


def test_what_is_listed_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inventory, "MOST_LISTED", 3)
    a = source(tmp_path, "a", {"model.safetensors": b"", **{f"{number}.exe": b"" for number in range(5)}})

    assert taken_stock({}, (), [a]).left == {"a": ("0.exe", "1.exe", "2.exe", "and 2 more")}


def test_after_many_files_folders_are_listed_unseen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inventory, "MOST_LOOKED_AT", 3)
    many = {f"a/{number}": b"" for number in range(5)}
    a = source(tmp_path, "a", {"model.safetensors": b"", **many, "b/config.json": b""})

    assert taken_stock({"b/config.json": b"anew"}, (), [a]).left == {"a": ("a/", "b/")}
