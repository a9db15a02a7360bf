"""What may not be written is not touched: outputs that exist, are inputs, or belong to somebody else."""

import ctypes
import fcntl
import json
import os
import shutil
import signal
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from conftest import command_line, directory_state
from inputs.watching import watched_reads
from modelmerger import MergeConfig, OutputError, Watch, merge, merge_part, verify

from tests.faults.conftest import MANY
from tests.faults.stopping import assert_sentences, ended, fork, staging_path, wait_until

Refused = Callable[..., str]
CAPABILITIES_VERSION, EFFECTIVE, PERMITTED, CAP_DAC_OVERRIDE = 0x20080522, 0, 1, 1


@pytest.mark.parametrize("overwrite", [False, True])
def test_two_merges_at_once_give_one_whole_output(sharded: SimpleNamespace, overwrite: bool) -> None:
    """A10"""
    if overwrite:
        merge(MergeConfig(**sharded.config(weight=0.7)))
    config = sharded.config(MANY, overwrite=overwrite)
    started, go_on = sharded.folder / "started", sharded.folder / "go on"

    def hold(name: str, _: Path) -> None:
        if name == "write" and not started.exists():
            started.touch()
            wait_until(go_on.exists)

    said = sharded.folder / "said"
    first = fork(lambda: merge(MergeConfig(**config), Watch(step=hold)) and None)
    wait_until(started.exists)
    (sharded.folder / "second.json").write_text(json.dumps(config))
    second = fork(lambda: command_line("merge", sharded.folder / "second.json"), said)
    statuses = [ended(second)]
    go_on.touch()
    statuses.append(ended(first))
    assert statuses == [4, 0]

    assert "is being written by another merge at this moment" in said.read_text()
    assert_sentences(said.read_text())
    verify(sharded.output)
    assert not staging_path(sharded.output).exists()


def test_many_merges_at_once_give_one_whole_output(sharded: SimpleNamespace) -> None:
    """A10: whoever is late, at the lock or at the rename, fails with a sentence."""
    config = sharded.config(MANY)

    def attempt() -> int:
        try:
            merge(MergeConfig(**config))
        except OutputError:
            return 4
        return 0

    statuses = [ended(child) for child in [fork(attempt) for _ in range(5)]]

    assert sorted(statuses) == [0, 4, 4, 4, 4]
    verify(sharded.output)


def test_where_locks_are_local_to_a_machine_an_owner_keeps_the_other_away(
    sharded: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A10: as on two machines, of which neither hears of the other's lock; a killed one keeps nobody away."""
    monkeypatch.setattr(fcntl, "flock", lambda *_: None)
    config = sharded.config(MANY)
    started = sharded.folder / "started"

    def hold(name: str, _: Path) -> None:
        if name == "write":
            started.touch()
            signal.pause()

    first = fork(lambda: merge(MergeConfig(**config), Watch(step=hold)) and None)
    wait_until(started.exists)
    try:
        refusal = rf"is being written by another merge at this moment \(process {first} on "
        with pytest.raises(OutputError, match=refusal):
            merge(MergeConfig(**config))
        with pytest.raises(OutputError, match=refusal):
            merge_part(config, "0/2")
    finally:
        os.kill(first, signal.SIGKILL)
    assert ended(first) == -signal.SIGKILL

    merge(MergeConfig(**config))
    verify(sharded.output)
    assert not staging_path(sharded.output).exists()


def test_of_many_merges_without_a_lock_one_succeeds(sharded: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    """A10: each sees the others through their files alone."""
    monkeypatch.setattr(fcntl, "flock", lambda *_: None)
    config = sharded.config(MANY)

    def attempt() -> int:
        try:
            merge(MergeConfig(**config))
        except OutputError:
            return 4
        return 0

    statuses = [ended(child) for child in [fork(attempt) for _ in range(4)]]

    assert sorted(statuses) == [0, 4, 4, 4]
    verify(sharded.output)


def directory(path: Path) -> None:
    path.mkdir()
    (path / "thesis.txt").write_text("years of work")


def file(path: Path) -> None:
    path.write_text("years of work")


def link(path: Path) -> None:
    directory(path.parent / "elsewhere")
    path.symlink_to(path.parent / "elsewhere")


def dangling(path: Path) -> None:
    path.symlink_to(path.parent / "nowhere")


@pytest.mark.parametrize("make", [directory, file, link, dangling])
@pytest.mark.parametrize("overwrite", [False, True], ids=["", "overwrite"])
def test_an_output_that_exists_is_left_alone(
    sharded: SimpleNamespace,
    config_file: Callable[..., Path],
    refused: Refused,
    unread: Callable[[], bool],
    make: Callable[[Path], None],
    overwrite: bool,
) -> None:
    """A11, A13"""
    make(sharded.output)
    path = config_file(overwrite=overwrite)
    before = directory_state(sharded.folder)

    err = refused(4, "merge", path)

    assert err.startswith(f"error: {sharded.output}: exists")
    assert directory_state(sharded.folder) == before
    assert not (sharded.folder / "nowhere").exists()
    assert unread()


def test_the_output_of_an_earlier_merge_is_left_alone_without_overwrite(
    sharded: SimpleNamespace, config_file: Callable[..., Path], refused: Refused
) -> None:
    """A11: the same merge once more is no exception."""
    path = config_file()
    merge(MergeConfig(**sharded.config()))
    before = directory_state(sharded.output)

    assert "exists already" in refused(4, "merge", path)
    assert directory_state(sharded.output) == before
    assert not staging_path(sharded.output).exists()


MANIFESTS = {
    "none": None,
    "not JSON": "{",
    "another's": '{"schema": 1, "files": []}',
    "a list": "[1]",
    "deep": "[" * 9999,
}


@pytest.mark.parametrize("manifest", MANIFESTS.values(), ids=MANIFESTS)
def test_overwrite_wants_a_sound_manifest(
    sharded: SimpleNamespace, config_file: Callable[..., Path], refused: Refused, manifest: str | None
) -> None:
    """A13"""
    directory(sharded.output)
    if manifest is not None:
        (sharded.output / "modelmerger.json").write_text(manifest)
    before = directory_state(sharded.output)

    assert "no merge wrote it" in refused(4, "merge", config_file(overwrite=True))
    assert directory_state(sharded.output) == before


@pytest.mark.parametrize("moment", ["fsync", "rename"])
@pytest.mark.parametrize("overwrite", [False, True], ids=["", "overwrite"])
def test_a_directory_that_appears_while_the_merge_runs_is_left_alone(
    sharded: SimpleNamespace, overwrite: bool, moment: str
) -> None:
    """A11, A13: what is in it is not ours to delete, with overwrite too."""
    if overwrite:
        merge(MergeConfig(**sharded.config()))

    seen = []

    def appear(name: str, _: Path) -> None:
        seen.append(name)
        if name == moment:
            shutil.rmtree(sharded.output, ignore_errors=True)
            directory(sharded.output)

    with pytest.raises(OutputError, match="while the merge ran"):
        merge(MergeConfig(**sharded.config(MANY, overwrite=overwrite)), Watch(step=appear))

    assert directory_state(sharded.output) == {"thesis.txt": b"years of work"}
    if overwrite and moment == "fsync":
        assert "rename" not in seen  # not even exchanged and exchanged back


PLACES: dict[str, Callable[[SimpleNamespace], Path]] = {
    "the input itself": lambda s: s.a,
    "inside the input": lambda s: s.a / "merged",
    "around the input": lambda s: s.folder,
    "with dots": lambda s: s.b / ".." / "a" / "merged",
    "through a link": lambda s: linked(s.folder / "link", s.a) / "merged",
    "through a link above": lambda s: linked(s.folder / "above", s.folder) / "a",
    "base model": lambda s: s.folder / "base" / "merged",
}


def linked(path: Path, to: Path) -> Path:
    path.symlink_to(to)
    return path


@pytest.mark.parametrize("place", PLACES.values(), ids=PLACES)
@pytest.mark.parametrize("overwrite", [False, True], ids=["", "overwrite"])
def test_an_output_apart_from_every_input_is_wanted(
    sharded: SimpleNamespace,
    config_file: Callable[..., Path],
    refused: Refused,
    unread: Callable[[], bool],
    place: Callable[[SimpleNamespace], Path],
    overwrite: bool,
) -> None:
    """A14"""
    shutil.copytree(sharded.a, sharded.folder / "base")
    path = config_file(overwrite=overwrite)
    config = json.loads(path.read_text())
    config |= {
        "strategy": "task_arithmetic",
        "base_model": str(sharded.folder / "base"),
        "output_path": str(place(sharded)),
    }
    path.write_text(json.dumps(config))
    before = directory_state(sharded.folder)

    err = refused(4, "merge", path)

    assert "is, contains or lies in the input" in err
    assert directory_state(sharded.folder) == before
    assert unread()


def test_an_input_that_is_a_link_to_the_output_is_found_out(
    sharded: SimpleNamespace, config_file: Callable[..., Path], refused: Refused
) -> None:
    """A14: an earlier output, merged again into itself through a link."""
    merge(MergeConfig(**sharded.config()))
    path = config_file(overwrite=True)
    config = json.loads(path.read_text())
    config["models"][0]["path"] = str(linked(sharded.folder / "same", sharded.output))
    path.write_text(json.dumps(config))
    before = directory_state(sharded.output)

    assert "is, contains or lies in the input" in refused(4, "merge", path)
    assert directory_state(sharded.output) == before


def test_an_input_in_the_staging_directory_is_left_alone(sharded: SimpleNamespace) -> None:
    """A14: the staging directory is emptied by a merge of another plan."""
    merge(MergeConfig(**sharded.config()))
    staging_path(sharded.output).mkdir()
    sharded.output.rename(staging_path(sharded.output) / "model")
    config = sharded.config()
    config["models"][0]["path"] = str(staging_path(sharded.output) / "model")
    before = directory_state(staging_path(sharded.output))

    with pytest.raises(OutputError, match="lies in the input"):
        merge(MergeConfig(**config))
    assert directory_state(staging_path(sharded.output)) == before


@pytest.fixture
def bait(sharded: SimpleNamespace) -> Iterator[Path]:
    """A folder elsewhere that a planted link leads to. Nothing in it may change."""
    folder = sharded.folder / "bait"
    folder.mkdir()
    for name in ("model-00001-of-00004.safetensors", "config.json", "LICENSE", "journal"):
        (folder / name).write_bytes(b"untouched")
    yield folder
    assert set(directory_state(folder).values()) == {b"untouched"}
    assert len(directory_state(folder)) == 4


PLANTED = {
    "staging directory": "",
    "tree": "model",
    "shard": "model/model-00001-of-00004.safetensors",
    "document": "model/config.json",
    "folder of documents": "model/licenses",
    "journal": "journal",
}


@pytest.mark.parametrize("place", PLANTED.values(), ids=PLANTED)
def test_a_link_planted_in_the_staging_directory_is_not_followed(
    sharded: SimpleNamespace, bait: Path, place: str
) -> None:
    """A15: before the merge begins, in what an earlier run of the same plan left."""
    config = sharded.config(MANY)
    interrupt_at(config, "rename")
    planted = staging_path(sharded.output) / place
    target = bait / planted.name if (bait / planted.name).exists() else bait
    if planted.is_dir():
        shutil.rmtree(planted)
    else:
        planted.unlink()
    planted.symlink_to(target)

    if place in ("", "journal"):
        with pytest.raises(OutputError, match="is not a staging directory of a merge"):
            merge(MergeConfig(**config))
        return
    merge(MergeConfig(**config))

    assert not any(path.is_symlink() for path in sharded.output.rglob("*"))
    verify(sharded.output)


@pytest.mark.parametrize("step", ["create", "write"])
def test_a_link_planted_while_the_merge_runs_is_not_followed(sharded: SimpleNamespace, bait: Path, step: str) -> None:
    """A15: just before a file is made, and just before one is opened to be written."""

    def plant(name: str, path: Path) -> None:
        if (name, path.name) == (step, "model-00001-of-00004.safetensors") and not path.is_symlink():
            path.unlink(missing_ok=True)
            path.symlink_to(bait / path.name)

    with pytest.raises(OutputError):
        merge(MergeConfig(**sharded.config(MANY)), Watch(step=plant))
    assert directory_state(sharded.output) is None


def test_a_hard_link_planted_in_the_staging_directory_is_not_written_through(sharded: SimpleNamespace) -> None:
    """A15: a staged shard that is a second name of somebody's file of the same size."""
    config = sharded.config(MANY)
    interrupt_at(config, "rename")
    shard = staging_path(sharded.output) / "model" / "model-00001-of-00004.safetensors"
    theirs = sharded.folder / "theirs"
    theirs.write_bytes(b"x" * shard.stat().st_size)
    shard.unlink()
    os.link(theirs, shard)

    merge(MergeConfig(**config))

    assert set(theirs.read_bytes()) == {ord("x")}
    verify(sharded.output)


def test_a_folder_that_merely_has_the_name_of_a_staging_directory_is_left_alone(
    sharded: SimpleNamespace, config_file: Callable[..., Path], refused: Refused
) -> None:
    """A13: with files in it that are called like ours."""
    mine = staging_path(sharded.output)
    (mine / "model").mkdir(parents=True)
    (mine / "model" / "thesis.txt").write_text("years of work")
    (mine / "journal").write_text("Dear diary,\n")
    before = directory_state(mine)

    assert "is not a staging directory of a merge" in refused(4, "merge", config_file())
    assert directory_state(mine) == before


def interrupt_at(config: dict[str, object], step: str) -> None:
    def stop(name: str, _: Path) -> None:
        if name == step:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        merge(MergeConfig(**config), Watch(step=stop))


def test_a_missing_parent_is_refused_before_anything_is_read(
    sharded: SimpleNamespace, config_file: Callable[..., Path], refused: Refused, unread: Callable[[], bool]
) -> None:
    """A16"""
    err = refused(4, "merge", config_file(), "--output", sharded.folder / "no" / "such" / "merged")

    assert f"the folder {sharded.folder}/no does not exist. Make it first." in err
    assert not (sharded.folder / "no").exists()
    assert unread()


def test_a_missing_parent_whose_own_parent_is_there_is_made(
    sharded: SimpleNamespace, config_file: Callable[..., Path], command: Callable[..., SimpleNamespace]
) -> None:
    """A16: by the merge, and before that by nobody."""
    output = sharded.folder / "new" / "merged"

    for asked in ("check", "plan"):
        assert command(asked, config_file(), "--output", output).status == 0
    assert not output.parent.exists()
    made = command("merge", config_file(), "--output", output)

    assert (made.status, made.err) == (0, "")
    assert os.listdir(output.parent) == ["merged"]
    verify(output)


def test_a_merge_killed_after_it_made_the_parent_goes_on(sharded: SimpleNamespace) -> None:
    output = sharded.folder / "new" / "merged"
    told = sharded.config() | {"output_path": str(output)}
    steps: list[tuple[str, Path]] = []
    interrupt_at(told, "journal")
    assert os.listdir(output.parent) == [".merged.modelmerger"]

    merge(MergeConfig(**told), Watch(step=lambda name, path: steps.append((name, path))))

    assert ("create", output.parent) not in steps
    verify(output)


@pytest.mark.parametrize("parent", ["link", "file"])
def test_a_parent_that_is_no_folder_is_not_replaced(
    sharded: SimpleNamespace, config_file: Callable[..., Path], refused: Refused, parent: str
) -> None:
    """A16, a dangling link among them."""
    (sharded.folder / "link").symlink_to(sharded.folder / "nowhere")
    (sharded.folder / "file").write_text("precious")

    err = refused(4, "merge", config_file(), "--output", sharded.folder / parent / "merged")

    assert f"the folder {sharded.folder / parent} does not exist. Make it first." in err
    assert not (sharded.folder / "nowhere").exists()


def test_a_parent_that_cannot_be_written_to_is_refused_before_anything_is_read(
    sharded: SimpleNamespace, config_file: Callable[..., Path]
) -> None:
    """A16"""
    parent = sharded.folder / "read only"
    parent.mkdir(mode=0o555)
    path, said = config_file(), sharded.folder / "said"

    def without_rights() -> int:
        give_up_writing_anywhere()
        os.preadv = watched_reads(lambda: os._exit(98))  # in this process alone
        return command_line("merge", path, "--output", parent / "merged")

    assert ended(fork(without_rights, said)) == 4, said.read_text()
    assert f"the folder {parent} cannot be written to" in said.read_text()
    assert_sentences(said.read_text())


def give_up_writing_anywhere() -> None:
    """From now on permissions bind this process, also where root runs the tests; another user might not reach the sources."""
    libc, header, sets = ctypes.CDLL(None), (ctypes.c_uint32 * 2)(CAPABILITIES_VERSION, 0), (ctypes.c_uint32 * 6)()
    assert libc.capget(header, sets) == 0
    for number in (EFFECTIVE, PERMITTED):
        sets[number] &= ~(1 << CAP_DAC_OVERRIDE)
    assert libc.capset(header, sets) == 0


LONG = {"a name of 250 characters": "x" * 250, "a name of 300 characters": "x" * 300, "a file above": "a/config.json/x"}


@pytest.mark.parametrize("name", LONG.values(), ids=LONG)
def test_a_name_that_no_file_system_takes_is_refused_with_a_sentence(
    sharded: SimpleNamespace, config_file: Callable[..., Path], refused: Refused, name: str
) -> None:
    """A16"""
    path = config_file()
    config = json.loads(path.read_text())
    path.write_text(json.dumps(config | {"output_path": f"{sharded.folder}/{name}"}))
    before = directory_state(sharded.folder)

    refused(4, "merge", path)

    assert directory_state(sharded.folder) == before


@pytest.mark.parametrize("umask", [0o022, 0o027, 0o077])
def test_modes_follow_the_umask(sharded: SimpleNamespace, umask: int) -> None:
    """A17"""
    before = os.umask(umask)
    try:
        merge(MergeConfig(**sharded.config()))
    finally:
        os.umask(before)

    modes = {path: stat.S_IMODE(path.stat().st_mode) for path in [sharded.output, *sharded.output.rglob("*")]}
    assert {mode for path, mode in modes.items() if path.is_file()} == {0o666 & ~umask}
    assert {mode for path, mode in modes.items() if path.is_dir()} == {0o777 & ~umask}


def test_the_lock_goes_with_its_process(sharded: SimpleNamespace) -> None:
    """A10: a killed merge leaves no lock behind."""
    ready = sharded.folder / "ready"

    def hold(name: str, _: Path) -> None:
        if name == "write":
            ready.touch()
            signal.pause()

    child = fork(lambda: merge(MergeConfig(**sharded.config()), Watch(step=hold)) and None)
    wait_until(ready.exists)
    try:
        with pytest.raises(OutputError, match="another merge"):
            merge(MergeConfig(**sharded.config()))
    finally:
        os.kill(child, signal.SIGKILL)
    assert ended(child) == -signal.SIGKILL

    merge(MergeConfig(**sharded.config()))
