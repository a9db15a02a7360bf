import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from blake3 import blake3
from conftest import directory_state
from modelmerger import InputError, MergeConfig, merge
from modelmerger.output.digests import pieces_of_bytes
from modelmerger.output.manifest import FILE, file_entry, is_ours, pieces_of, read_manifest, total_counts
from modelmerger.values.work.block_record import BlockRecord, Piece

SOUND: dict[str, Any] = {
    "schema": 1,
    "plan": "p",
    "companions": ["README.md"],
    "files": {"model.safetensors": file_entry([*pieces_of_bytes(b"abc"), Piece(4, "0" * 64, "w")])},
}


def test_every_file_but_the_companions_is_in_the_manifest_with_its_digest(
    models: SimpleNamespace, config: dict[str, Any]
) -> None:
    report = merge(MergeConfig(**config))

    manifest = read_manifest(models.output)
    written = directory_state(models.output) or {}
    assert set(manifest["files"]) == set(written) - {*manifest["companions"], FILE}
    for name, entry in manifest["files"].items():
        pieces, begin, digests = pieces_of(entry), 0, b""
        for piece in pieces:
            digests += (digest := blake3(written[name][begin : begin + piece.length]).digest())
            assert piece.digest == digest.hex()
            begin += piece.length
        assert begin == entry["size"] == len(written[name])
        assert entry["digest"] == blake3(digests).hexdigest()
    assert manifest["plan"] == report.plan
    assert manifest["config"]["models"][0]["weight"] == 0.6
    assert [source["name"] for source in manifest["sources"]] == ["a", "b"]
    assert {"kind": "strategy", "name": "weighted"}.items() <= manifest["plugins"][0].items()


def test_tensors_that_share_a_block_have_digests_of_their_own(models: SimpleNamespace, config: dict[str, Any]) -> None:
    merge(MergeConfig(**config))

    content = (models.output / "model.safetensors").read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    header.pop("__metadata__")
    expected = [Piece(8 + length, blake3(content[: 8 + length]).hexdigest())]
    for name, entry in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
        begin, end = (8 + length + offset for offset in entry["data_offsets"])
        expected.append(Piece(end - begin, blake3(content[begin:end]).hexdigest(), name))
    assert pieces_of(read_manifest(models.output)["files"]["model.safetensors"]) == expected


def test_equal_merges_have_equal_manifests(models: SimpleNamespace, config: dict[str, Any]) -> None:
    """Also where something is said of an earlier run's leavings."""
    merge(MergeConfig(**config))
    first = (models.output / FILE).read_bytes()
    models.output.rename(models.folder / "moved")
    staging = models.folder / ".merged.modelmerger"
    staging.mkdir()
    (staging / "journal").write_text('{"modelmerger": 1, "plan": "another"}\n')

    report = merge(MergeConfig(**config))

    assert any("another plan" in note.message for note in report.notes)
    assert (models.output / FILE).read_bytes() == first


def test_counts_are_summed_over_blocks() -> None:
    records = {(0, 0): BlockRecord((), {"x": 1}), (0, 1): BlockRecord((), {"x": 2, "a": 3}), (1, 0): BlockRecord(())}

    assert total_counts(records) == {"a": 3, "x": 3}
    assert file_entry([]) == {"size": 0, "digest": blake3(b"").hexdigest(), "pieces": []}


def changed(**changes: Any) -> str:
    return json.dumps(SOUND | changes)


def file(**changes: Any) -> dict[str, Any]:
    return {"files": {"model.safetensors": SOUND["files"]["model.safetensors"] | changes}}


HOSTILE = {
    "empty": "",
    "not JSON": "{",
    "not UTF-8": b"\xff\xfe\x00",
    "a list": "[]",
    "a number": "1",
    "null": "null",
    "deep": "[" * 100_000,
    "deep inside": '{"schema": ' + "[" * 900 + "]" * 900 + "}",
    "files given twice": json.dumps(SOUND)[:-1] + ', "files": {}}',
    "huge number": '{"schema": ' + "9" * 10_000 + "}",
    "no schema": json.dumps({k: v for k, v in SOUND.items() if k != "schema"}),
    "no plan": json.dumps({k: v for k, v in SOUND.items() if k != "plan"}),
    "no companions": json.dumps({k: v for k, v in SOUND.items() if k != "companions"}),
    "plan is no text": changed(plan=[]),
    "schema is a list": changed(schema=[1]),
    "schema is a text": changed(schema="1"),
    "files is a list": changed(files=[]),
    "file is a list": changed(files={"a": []}),
    "file is null": changed(files={"a": None}),
    "no size": changed(files={"a": {"pieces": []}}),
    "no pieces": changed(files={"a": {"size": 0}}),
    "not the digest of its pieces": changed(**file(digest="0" * 64)),
    "not the size of its pieces": changed(**file(size=4)),
    "size is a text": changed(**file(size="3")),
    "size is a fraction": changed(**file(size=0.5)),
    "size is negative": changed(**file(size=-1)),
    "pieces is a text": changed(**file(pieces="b")),
    "pieces is null": changed(**file(pieces=None)),
    "piece is a number": changed(**file(pieces=[1])),
    "piece has no digest": changed(**file(pieces=["3"])),
    "piece has a short digest": changed(**file(pieces=["3 0a"])),
    "companions is a text": changed(companions="README.md"),
    "companion is a list": changed(companions=[[]]),
    "companion leads out": changed(companions=["../README.md"]),
    "companion in a folder": changed(companions=["docs/README.md"]),
    "extra is a text": changed(extra="notes.txt"),
    "an extra is a list": changed(extra=[[]]),
    "dots": changed(files={"../secret": file_entry([])}),
    "absolute": changed(files={"/etc/passwd": file_entry([])}),
    "NUL": changed(files={"a\0b": file_entry([])}),
    "half a character": changed(files={"\ud800": file_entry([])}),
}


@pytest.mark.parametrize("content", HOSTILE.values(), ids=HOSTILE)
def test_an_unsound_manifest_is_refused_with_a_sentence(tmp_path: Path, content: str | bytes) -> None:
    (tmp_path / FILE).write_bytes(content if isinstance(content, bytes) else content.encode())

    with pytest.raises(InputError, match="is not the manifest of a merge") as raised:
        read_manifest(tmp_path)
    assert all(len(line) <= 300 for line in raised.value.lines())
    assert not is_ours(tmp_path)


def test_a_manifest_of_another_version_is_refused_as_such(tmp_path: Path) -> None:
    (tmp_path / FILE).write_text('{"schema": 2, "something": "else"}')

    with pytest.raises(InputError, match="has schema 2, and this version of modelmerger knows 1"):
        read_manifest(tmp_path)
    assert not is_ours(tmp_path)


def test_a_sound_manifest_makes_a_directory_ours(tmp_path: Path) -> None:
    assert not is_ours(tmp_path)
    (tmp_path / FILE).write_text(json.dumps(SOUND))

    assert is_ours(tmp_path)
    assert read_manifest(tmp_path) == SOUND


@pytest.mark.parametrize("files", [{}, {"config.json": file_entry(pieces_of_bytes(b"abc"))}])
def test_a_manifest_that_lists_no_weights_makes_nothing_ours(tmp_path: Path, files: dict[str, Any]) -> None:
    (tmp_path / FILE).write_text(changed(files=files))

    assert not is_ours(tmp_path)


def test_a_manifest_too_large_to_be_one_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / FILE).open("wb") as file:
        file.truncate((512 << 20) + 1)

    with pytest.raises(InputError, match="more than the"):
        read_manifest(tmp_path)
