"""Rows B1 to B9 of the list of bad inputs, through the command line: what is refused, what it says, and what is not opened."""

import hashlib
import json
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from conftest import random_tensors, write_model
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from inputs.refusing import weighted
from inputs.watching import at_once, watched
from modelmerger import InputError, LoadContext, MergeConfig, ModelReference, merge, shown
from modelmerger_plugins import directory
from safetensors.torch import load_file, save_file

from tests.core.inputs.safetensors_header.hostile_headers import HOSTILE, HostileFile

INDEX = "model.safetensors.index.json"
Refused = Callable[..., SimpleNamespace]


class Explosive:
    """Pickled, it makes a file when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return (open, (str(self.mark), "w"))


def sharded(folder: Path, seed: int = 1) -> Path:
    return write_model(folder, random_tensors(seed), shards=3)


def change_index(folder: Path, tensor: str, file: object) -> None:
    index = json.loads((folder / INDEX).read_text())
    index["weight_map"][tensor] = file
    (folder / INDEX).write_text(json.dumps(index))


@pytest.mark.parametrize("name", ["pytorch_model.bin", "consolidated.00.pth", "model.pt", "model.ckpt", "weights.pkl"])
@pytest.mark.parametrize("direct", [False, True], ids=["directory", "file"])
def test_pickled_weights_are_refused_and_not_unpickled(
    models: SimpleNamespace, refused: Refused, name: str, direct: bool
) -> None:
    """B1."""
    folder = models.folder / "pickled"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    mark = models.folder / "executed"
    (folder / name).write_bytes(pickle.dumps(Explosive(mark)))

    refusal = refused(weighted(models.a, folder / name if direct else folder))

    if name.startswith("consolidated"):
        assert "in Meta's own format. Convert it with transformers'" in refusal.text
    else:
        assert refusal.text.startswith(f"{shown(str(folder / name))}: is pickled, and loading a pickle can run code.")
        assert "save_pretrained" in refusal.text
    assert not mark.exists()
    assert not refusal.seen.unpickled


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_safetensors_file_is_refused_with_file_tensor_and_reason(tmp_path: Path, case: str) -> None:
    """B2, B4: through the plugin that opens models."""
    hostile: HostileFile = HOSTILE[case]
    path = tmp_path / "model.safetensors"
    path.write_bytes(hostile.content)

    with at_once(), pytest.raises(InputError) as refusal:
        directory.load_model(ModelReference(str(tmp_path), "hostile", ""), LoadContext(), directory.Options())

    (problem,) = refusal.value.problems
    assert (problem.where, problem.tensor) == (str(path), hostile.tensor or "")
    assert hostile.reason in problem.message
    (line,) = refusal.value.lines()
    assert len(line) <= 300
    assert line.isprintable()


@pytest.mark.parametrize(
    "case", ["length over the limit", "an overlap", "a tensor twice", "name with escape codes", "trailing bytes"]
)
def test_a_hostile_safetensors_file_is_refused_by_every_command(
    models: SimpleNamespace, refused: Refused, case: str
) -> None:
    """B2, B4, B17: exit status and streams."""
    folder = models.folder / "hostile"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(HOSTILE[case].content)

    refusal = refused(weighted(models.a, folder))

    assert refusal.text.startswith(f"{shown(str(folder / 'model.safetensors'))}: ")
    assert f": {HOSTILE[case].tensor}: " in refusal.text or HOSTILE[case].tensor is None


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_mutated_files_are_read_or_refused_and_never_crash(tmp_path: Path, data: st.DataObject) -> None:
    """B3: cut, changed and grown copies of a sound file."""
    sound = tmp_path / "sound.safetensors"
    if not sound.exists():
        save_file(random_tensors(1), sound)
    content = bytearray(sound.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, min(len(content), 900)))
        content[place : place + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=4))
    cut = data.draw(st.integers(0, len(content)) | st.just(len(content)))
    path = tmp_path / "mutated.safetensors"
    path.write_bytes(content[:cut])

    with at_once():
        try:
            directory.load_model(ModelReference(str(path), "mutated", ""), LoadContext(), directory.Options())
        except InputError as error:
            assert error.problems[0].where == str(path)


def test_a_tensor_named_twice_in_an_index_is_refused(models: SimpleNamespace, refused: Refused) -> None:
    """B4."""
    folder = sharded(models.folder / "twice")
    text = (folder / INDEX).read_text()
    first = '"model.embed_tokens.weight": "model-00001-of-00003.safetensors"'
    assert first in text
    (folder / INDEX).write_text(text.replace(first, f"{first}, {first.replace('00001', '00002', 1)}"))

    refusal = refused(weighted(models.a, folder))

    assert refusal.text.startswith(f"{shown(str(folder / INDEX))}: ")
    assert "the key 'model.embed_tokens.weight' is given twice" in refusal.text


@pytest.mark.parametrize(
    "entry",
    [
        "../victim/model.safetensors",
        "{victim}/model.safetensors",
        "..\\victim\\model.safetensors",
        "sub/model.safetensors",
        "model.safetensors\0",
        "\0.safetensors",
        "..",
        "",
        ".safetensors/",
        "model.bin",
        "config.json",
        "a\u202efed.safetensors",
        "\x1b[2J.safetensors",
        ["model.safetensors"],
        None,
        7,
    ],
    ids=lambda entry: ascii(entry).replace("\\", "/"),
)
def test_an_index_entry_that_is_no_plain_file_name_is_refused_and_nothing_outside_is_opened(
    models: SimpleNamespace, refused: Refused, entry: object
) -> None:
    """B5."""
    victim = write_model(models.folder / "victim", models.tensors["b"])
    folder = sharded(models.folder / "model")
    shutil.copytree(victim, folder / "sub")
    spelled = entry.format(victim=victim) if isinstance(entry, str) else entry
    change_index(folder, "model.norm.weight", spelled)

    refusal = refused(weighted(models.a, folder))

    assert refusal.text.startswith(f"{shown(str(folder / INDEX))}: model.norm.weight: sends this tensor to ")
    assert refusal.seen.opened_in(victim) == refusal.seen.opened_in(folder / "sub") == []


def test_an_index_entry_with_a_name_too_long_for_any_file_is_refused(models: SimpleNamespace, refused: Refused) -> None:
    """B5."""
    folder = sharded(models.folder / "model")
    change_index(folder, "model.norm.weight", "x" * 5000 + ".safetensors")

    assert f"x.safetensors of 4 files that {INDEX} lists" in refused(weighted(models.a, folder)).text


@pytest.mark.parametrize("name", ["model-00002-of-00003.safetensors", INDEX, "config.json"])
def test_a_link_out_of_the_directory_is_refused_and_not_followed(
    models: SimpleNamespace, refused: Refused, name: str
) -> None:
    """B6."""
    folder, outside = sharded(models.folder / "model"), models.folder / "outside"
    outside.mkdir()
    (folder / name).rename(outside / name)
    (folder / name).symlink_to(Path("..") / "outside" / name)

    refusal = refused(weighted(models.a, folder))

    assert refusal.text.startswith(
        f"{shown(str(folder / name))}: is a link that leads out of the model's directory, to "
    )
    assert refusal.seen.opened_in(outside) == []


@pytest.mark.parametrize("name", ["tokenizer.json", "chat_template.jinja", "generation_config.json", "LICENSE"])
def test_a_file_to_be_copied_that_is_a_link_out_is_refused_before_the_merge(
    models: SimpleNamespace, refused: Refused, name: str
) -> None:
    """B6, B11."""
    secret = models.folder / "outside" / "secret"
    secret.parent.mkdir()
    secret.write_text("{}")
    (models.a / name).symlink_to(secret)

    refusal = refused(weighted(models.a, models.b))

    assert refusal.text.startswith(f"{shown(str(models.a / name))}: is a link that leads out of the model's directory")
    assert refusal.seen.opened_in(secret.parent) == []


def test_a_link_through_another_link_in_the_directory_is_refused(models: SimpleNamespace, refused: Refused) -> None:
    """B6: where a chain of links ends is what counts."""
    outside = write_model(models.folder / "outside", models.tensors["b"])
    folder = models.folder / "model"
    folder.mkdir()
    (folder / "inner").symlink_to(outside / "model.safetensors")
    (folder / "model.safetensors").symlink_to("inner")

    assert refused(weighted(models.a, folder)).seen.opened_in(outside) == []


def test_links_inside_the_directory_are_followed(models: SimpleNamespace, config: dict[str, Any]) -> None:
    """B6."""
    (models.b / "model.safetensors").rename(models.b / "weights")
    (models.b / "model.safetensors").symlink_to("weights")

    merge(MergeConfig(**config))

    assert (models.output / "model.safetensors").is_file()


def hub_cache(folder: Path, model: Path) -> Path:
    """The model as a Hub cache holds it: snapshots/REVISION/file → ../../blobs/HASH. Returns the snapshot."""
    snapshot, blobs = folder / "models--org--name" / "snapshots" / "0a1b2c", folder / "models--org--name" / "blobs"
    (snapshot / "additional_chat_templates").mkdir(parents=True)
    blobs.mkdir()
    for path in sorted(path for path in model.rglob("*") if path.is_file()):
        place = snapshot / path.relative_to(model)
        blob = blobs / hashlib.sha256(path.read_bytes()).hexdigest()
        shutil.copyfile(path, blob)
        place.symlink_to(os.path.relpath(blob, place.parent))
    return snapshot


def test_a_snapshot_of_a_hub_cache_is_read_through_its_links(models: SimpleNamespace, config: dict[str, Any]) -> None:
    """B6: weights in shards, and every file that is copied, one of them in a sub-folder."""
    source = sharded(models.folder / "source")
    (source / "additional_chat_templates").mkdir()
    copied = {
        "tokenizer.json": "{}",
        "LICENSE": "mit",
        "generation_config.json": "{ }",
        "additional_chat_templates/x.jinja": "{{ messages }}",
    }
    for name, text in copied.items():
        (source / name).write_text(text)
    snapshot = hub_cache(models.folder / "cache", source)
    config["models"] = [{"path": str(snapshot), "name": "cached"}, {"path": str(models.b)}]

    merge(MergeConfig(**config))

    expected = {**copied, "licenses/cached/LICENSE": copied["LICENSE"]}
    del expected["LICENSE"]
    assert {name: (models.output / name).read_text() for name in expected} == expected
    exact = (
        0.5 * random_tensors(1)["model.norm.weight"].double() + 0.5 * models.tensors["b"]["model.norm.weight"].double()
    )
    merged = load_file(models.output / "model.safetensors")["model.norm.weight"]
    torch.testing.assert_close(merged.double(), exact, rtol=2**-8, atol=0)


def test_a_hub_cache_whose_link_leads_out_of_its_blobs_is_refused(models: SimpleNamespace, refused: Refused) -> None:
    """B6: also into the blobs of another repository."""
    other = models.folder / "cache" / "models--org--other" / "blobs" / "abc"
    other.parent.mkdir(parents=True)
    shutil.copyfile(models.b / "model.safetensors", other)
    snapshot = models.folder / "cache" / "models--org--name" / "snapshots" / "1"
    snapshot.mkdir(parents=True)
    (snapshot / "model.safetensors").symlink_to("../../../models--org--other/blobs/abc")

    refusal = refused(weighted(models.a, snapshot))

    assert "is a link that leads out of the model's directory" in refusal.text
    assert refusal.seen.opened_in(other.parent) == []


def put(path: Path, kind: str) -> None:
    path.unlink(missing_ok=True)
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "device":
        os.mknod(path, 0o20666, os.makedev(1, 5))
    else:
        path.mkdir()


READ = ["model.safetensors", INDEX, "config.json", "tokenizer.json", "generation_config.json"]


@pytest.mark.parametrize(
    ("name", "kind"),
    [(name, kind) for name in READ for kind in ("fifo", "device", "directory")] + [("LICENSE", "fifo")],
)
def test_what_is_no_regular_file_is_refused_at_once(
    models: SimpleNamespace, refused: Refused, name: str, kind: str
) -> None:
    """B7: within a second, without waiting for a writer."""
    if kind == "device" and os.geteuid() != 0:
        pytest.skip("only root makes devices")
    put(models.a / name, kind)

    refusal = refused(weighted(models.a, models.b))

    assert refusal.text.startswith(f"{shown(str(models.a / name))}: ")
    assert "is not a regular file" in refusal.text


@pytest.mark.parametrize("name", ["pipe", "pipe.safetensors"])
def test_a_model_path_that_is_a_fifo_is_refused_at_once(models: SimpleNamespace, refused: Refused, name: str) -> None:
    """B7."""
    os.mkfifo(models.folder / name)

    assert "regular file" in refused(weighted(models.a, models.folder / name)).text


def test_a_single_file_beside_an_index_of_other_shards_is_ambiguous(models: SimpleNamespace, refused: Refused) -> None:
    """B8."""
    folder = sharded(models.folder / "model")
    shutil.copy(models.b / "model.safetensors", folder)

    assert "ambiguous" in refused(weighted(models.a, folder)).text


def test_several_files_without_an_index_are_ambiguous(models: SimpleNamespace, refused: Refused) -> None:
    """B8."""
    folder = sharded(models.folder / "model")
    (folder / INDEX).unlink()

    assert "has 3 safetensors files and no model.safetensors.index.json" in refused(weighted(models.a, folder)).text


def test_an_index_of_the_single_file_is_accepted(models: SimpleNamespace, config: dict[str, Any]) -> None:
    """B8: nothing disagrees."""
    index = {"weight_map": dict.fromkeys(models.tensors["b"], "model.safetensors")}
    (models.b / INDEX).write_text(json.dumps(index))

    assert merge(MergeConfig(**config)).tensors == len(models.tensors["b"])


def test_a_missing_shard_is_named(models: SimpleNamespace, refused: Refused) -> None:
    """B9."""
    folder = sharded(models.folder / "model")
    (folder / "model-00003-of-00003.safetensors").unlink()

    text = refused(weighted(models.a, folder)).text

    assert text == (
        f"{shown(str(folder))}: lacks model-00003-of-00003.safetensors of 3 files that {INDEX} lists. "
        "Run the download again, until it is whole."
    )


@pytest.mark.parametrize("left", [0, 5, 100, -1], ids=["empty", "in the length", "in the header", "in the data"])
def test_a_truncated_shard_is_named_before_anything_is_merged(
    models: SimpleNamespace, refused: Refused, left: int
) -> None:
    """B9."""
    shard = sharded(models.folder / "model") / "model-00002-of-00003.safetensors"
    os.truncate(shard, left if left >= 0 else shard.stat().st_size + left)

    assert refused(weighted(models.a, shard.parent)).text.startswith(f"{shown(str(shard))}: ")


def test_a_tensor_that_the_shard_lacks_is_named(models: SimpleNamespace, refused: Refused) -> None:
    """B9."""
    folder = sharded(models.folder / "model")
    change_index(folder, "model.absent", "model-00001-of-00003.safetensors")

    where = shown(str(folder / "model-00001-of-00003.safetensors"))
    assert refused(weighted(models.a, folder)).text.startswith(
        f"{where}: model.absent: lacks this tensor, which {INDEX}"
    )


def test_a_tensor_that_the_index_does_not_know_is_named(models: SimpleNamespace, refused: Refused) -> None:
    """B9."""
    folder = sharded(models.folder / "model")
    shard = folder / "model-00001-of-00003.safetensors"
    save_file({**load_file(shard), "stray": torch.zeros(2)}, shard)

    assert refused(weighted(models.a, folder)).text.startswith(
        f"{shown(str(shard))}: stray: holds this tensor, which {INDEX} does not send here."
    )


def test_a_tensor_that_stands_in_two_shards_is_named(models: SimpleNamespace, refused: Refused) -> None:
    """B9: the index sends it to one of them."""
    folder = sharded(models.folder / "model")
    first, second = (folder / f"model-0000{number}-of-00003.safetensors" for number in (1, 2))
    save_file({**load_file(second), "model.embed_tokens.weight": torch.zeros(24, 16)}, second)
    assert "model.embed_tokens.weight" in load_file(first)

    text = refused(weighted(models.a, folder)).text
    assert text.startswith(f"{shown(str(second))}: model.embed_tokens.weight: holds this tensor")


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{}", '{"weight_map": []}', '{"weight_map": {}}', '{"weight_map"', "\xff", "[" * 100_000, "nul"],
    ids=["empty", "list", "no map", "list for a map", "empty map", "cut", "not UTF-8", "deep", "a word"],
)
def test_an_index_that_is_none_is_refused(models: SimpleNamespace, refused: Refused, text: str) -> None:
    """B9."""
    folder = sharded(models.folder / "model")
    (folder / INDEX).write_bytes(text.encode("latin-1"))

    assert refused(weighted(models.a, folder)).text.startswith(f"{shown(str(folder / INDEX))}: ")


def test_files_beside_the_model_are_not_opened(models: SimpleNamespace, config: dict[str, Any]) -> None:
    """B7: nothing looks at a FIFO that is no part of the model, nor at a README as large as a disk."""
    os.mkfifo(models.a / "training.log")
    os.mkfifo(models.a / "modeling_custom.py")
    (models.a / "README.md").touch()
    os.truncate(models.a / "README.md", 10 << 30)

    with at_once(), watched() as seen:
        merge(MergeConfig(**config))

    assert seen.opened_in(models.a / "training.log") == seen.opened_in(models.a / "modeling_custom.py") == []
