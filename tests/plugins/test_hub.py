"""Models by Hub id: what is fetched, at which commit, what never goes to the network, and every way in which it can fail."""

import errno
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from conftest import random_tensors, write_model
from inputs.fake_hub import FakeHub, hub, served
from inputs.watching import at_once
from modelmerger import InputError, MergeConfig, ModelMerger, check_model_compatibility, merge, verify
from safetensors.torch import load_file

__all__ = ["hub"]

Command = Callable[..., SimpleNamespace]
NEVER_FETCHED = (
    "1_Pooling/config.json",
    "2_Dense/model.safetensors",
    "pytorch_model.bin",
    "training_args.bin",
    "modeling.py",
    "consolidated.safetensors",
    "onnx/model.safetensors",
    "original/tokenizer.model",
    "LICENSE.py",
    "flax_model.msgpack",
    "vocab.js",
    "1_Pooling/code.py",
    "2_Dense/pytorch_model.bin",
    "licenses/x/y/LICENSE",
)
FETCHED = (
    "1_Pooling/config.json",
    "2_Dense/model.safetensors",
    "LICENSE",
    "README.md",
    "additional_chat_templates/rag.jinja",
    "chat_template.jinja",
    "config.json",
    "generation_config.json",
    "licenses/x/LICENSE",
    "model.safetensors",
    "modules.json",
    "source.spm",
    "tokenizer.json",
    "tokenizer_config.json",
)


def pushed(hub: FakeHub, repository: str, folder: Path, *more: str, revision: str = "main") -> str:
    """Pushes a model's directory, and more files beside it, which hold their names."""
    files = {p.name: p.read_bytes() for p in folder.iterdir()}
    return hub.push(repository, files | {name: name.encode() for name in more}, revision)


@pytest.fixture
def by_id(hub: FakeHub, models: SimpleNamespace, config: dict[str, Any]) -> dict[str, Any]:
    """The config's models as org/a and org/b."""
    for name in ("a", "b"):
        pushed(hub, f"org/{name}", getattr(models, name))
    return {**config, "models": [{"path": "org/a", "weight": 0.6}, {"path": "org/b", "weight": 0.4}]}


def refusal(command: Command, folder: Path, *paths: str, status: int = 3) -> str:
    """The one line that check says of a merge of these paths."""
    path = folder / "refused.json"
    path.write_text(json.dumps({"strategy": "weighted", "models": [{"path": p, "name": p} for p in paths]}))
    result = command("check", path)
    assert (result.status, result.out) == (status, "")
    (line,) = result.err.splitlines()
    assert len(line) <= 300
    return line


def test_a_merge_by_id_gives_the_bytes_of_a_local_one(
    by_id: dict[str, Any], models: SimpleNamespace, config: dict[str, Any]
) -> None:
    merge(MergeConfig(**by_id))
    merge(MergeConfig(**{**config, "output_path": str(models.folder / "local")}))

    verify(models.output)
    weights = [(folder / "model.safetensors").read_bytes() for folder in (models.output, models.folder / "local")]
    assert weights[0] == weights[1]


def test_only_data_that_a_merge_needs_is_fetched(hub: FakeHub, models: SimpleNamespace) -> None:
    others = [name for name in FETCHED if name not in ("config.json", "model.safetensors")]
    pushed(hub, "org/a", models.a, *others, *NEVER_FETCHED)

    ModelMerger(MergeConfig(strategy="weighted", models=[{"path": "org/a"}])).load_models()

    assert hub.fetched == sorted(FETCHED)


def test_weights_of_any_name_are_fetched_where_there_are_no_others(hub: FakeHub, models: SimpleNamespace) -> None:
    (models.a / "model.safetensors").rename(models.a / "weights.safetensors")
    pushed(hub, "org/a", models.a)

    ModelMerger(MergeConfig(strategy="weighted", models=[{"path": "org/a"}])).load_models()

    assert hub.fetched == ["config.json", "weights.safetensors"]


def test_shards_are_fetched_with_their_index(hub: FakeHub, models: SimpleNamespace) -> None:
    write_model(models.folder / "sharded", models.tensors["a"], shards=3)
    pushed(hub, "org/a", models.folder / "sharded")

    models = ModelMerger(MergeConfig(strategy="weighted", models=[{"path": "org/a"}])).load_models()

    assert len(models["a"].files) == 3


def test_the_commit_is_recorded_in_manifest_card_and_plan(
    hub: FakeHub, by_id: dict[str, Any], models: SimpleNamespace, command: Command
) -> None:
    first = hub.revisions["org/a", "main"]
    second = pushed(hub, "org/b", models.base, revision="refs/pr/1")
    by_id["models"][1]["path"] = "org/b@refs/pr/1"
    by_id["models"][1]["name"] = "b"

    merge(MergeConfig(**by_id))

    manifest = json.loads((models.output / "modelmerger.json").read_bytes())
    assert [source["revision"] for source in manifest["sources"]] == [first, second]
    assert [source["path"] for source in manifest["sources"]] == ["org/a", "org/b@refs/pr/1"]
    card = (models.output / "README.md").read_text()
    assert yaml.safe_load(card.split("---\n")[1])["base_model"] == ["org/a", "org/b"]
    assert f"| a (org/a, commit {first}) | not stated |" in card
    path = models.folder / "merge.json"
    path.write_text(json.dumps(by_id))
    assert f"(org/b@refs/pr/1, commit {second})" in command("plan", path, "--no-trial").out
    planned = json.loads(command("plan", path, "--no-trial", "--json").out)
    assert [model["revision"] for model in planned["models"]] == [first, second]


def test_local_models_have_no_revision(models: SimpleNamespace, config: dict[str, Any]) -> None:
    report = merge(MergeConfig(**config))

    manifest = json.loads((Path(report.output) / "modelmerger.json").read_bytes())
    assert [sorted(source) for source in manifest["sources"]] == [["files", "name", "path"]] * 2
    assert ", commit" not in str(ModelMerger(MergeConfig(**config)).plan())


def test_a_revision_is_read_as_it_is_named_and_a_new_commit_is_noticed(
    hub: FakeHub, models: SimpleNamespace, config: dict[str, Any]
) -> None:
    old = pushed(hub, "org/a", models.a)
    new = pushed(hub, "org/a", models.b)
    assert old != new

    def commits(path: str) -> list[str]:
        models = [{"path": path, "name": "x"}]
        return [m.revision for m in ModelMerger(MergeConfig(strategy="weighted", models=models)).plan().models]

    assert commits("org/a") == [new]
    assert commits(f"org/a@{old}") == [old]
    newest = pushed(hub, "org/a", models.base)
    assert commits("org/a") == [newest]


def test_a_name_that_is_given_twice_is_resolved_once(hub: FakeHub, models: SimpleNamespace) -> None:
    pushed(hub, "org/a", models.a)
    entries = [{"path": "org/a", "name": "first"}, {"path": "org/a", "name": "second"}]

    plan = ModelMerger(MergeConfig(strategy="weighted", models=entries, base_model="org/a")).plan()

    assert len({model.revision for model in plan.models}) == 1
    assert sum(path.startswith("GET /api/models/org/a/revision/main") for path in hub.asked) == 2  # list, snapshot


def test_base_model_takes_an_id_too(
    hub: FakeHub, by_id: dict[str, Any], models: SimpleNamespace, config: dict[str, Any]
) -> None:
    commit = pushed(hub, "org/base", models.base)
    config |= {"strategy": "task_arithmetic", "base_model": "org/base@main"}

    plan = ModelMerger(MergeConfig(**config)).plan()

    assert [model.revision for model in plan.models] == ["", "", commit]


def test_a_folder_that_is_called_like_an_organisation_can_be_saved_to(
    hub: FakeHub, models: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(models.folder)
    (models.a / "config.json").unlink()
    pushed(hub, "org/a", models.a)
    merger = ModelMerger(MergeConfig(strategy="weighted", models=[{"path": "org/a"}]))

    merger.save_merged_model(merger.merge(), "org")

    verify(models.folder / "org")


def test_models_by_id_can_be_compared(by_id: dict[str, Any]) -> None:
    assert check_model_compatibility([{"path": "org/a"}, {"path": "org/b"}]) is None


@pytest.mark.parametrize(
    "path",
    [
        "./org/a",
        "org/a/",
        "org/a/b",
        "~/a",
        "/org/a",
        "a",
        "org/a.safetensors",
        "org/a.bin",
        "org a/b",
        "org/@v",
        "org/a@../v",
    ],
)
def test_what_is_written_like_a_path_never_goes_to_the_network(
    hub: FakeHub, command: Command, tmp_path: Path, path: str
) -> None:
    assert "does not exist. Check the path" in refusal(command, tmp_path, path)
    assert hub.asked == []


def test_what_exists_never_goes_to_the_network(
    hub: FakeHub, models: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_model(models.folder / "org" / "a@v1", models.tensors["a"])
    (models.folder / "org" / "broken").symlink_to("nowhere")
    monkeypatch.chdir(models.folder)

    found = ModelMerger(MergeConfig(strategy="weighted", models=[{"path": "org/a@v1"}])).load_models()

    assert found["a@v1"].tensors.keys() == models.tensors["a"].keys()
    with pytest.raises(InputError, match="is neither a directory nor a regular file"):
        ModelMerger(MergeConfig(strategy="weighted", models=[{"path": "org/broken"}])).load_models()
    assert hub.asked == []


def test_ids_in_a_models_own_files_never_go_to_the_network(
    hub: FakeHub, models: SimpleNamespace, config: dict[str, Any], command: Command
) -> None:
    named = {"_name_or_path": "org/a", "base_model_name_or_path": "org/a", "model_type": "llama"}
    for name in ("config.json", "tokenizer_config.json", "generation_config.json"):
        (models.a / name).write_text(json.dumps(named))
    merge(MergeConfig(**config))
    (models.b / "adapter_config.json").write_text(json.dumps(named))

    assert "is an adapter" in refusal(command, models.folder, str(models.b))
    assert hub.asked == []


@pytest.mark.parametrize(("cut", "resumed"), [(0, []), (99, []), (570, ["model.safetensors bytes=500-"])])
def test_a_download_that_breaks_off_goes_on_where_it_was(
    hub: FakeHub,
    by_id: dict[str, Any],
    models: SimpleNamespace,
    monkeypatch: pytest.MonkeyPatch,
    cut: int,
    resumed: list[str],
) -> None:
    """To the last piece that was whole; these are of 100 bytes here, and of megabytes in life."""
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 100)
    monkeypatch.setattr("huggingface_hub.file_download.time.sleep", lambda _: None)
    hub.cut = {"model.safetensors": cut}

    checkpoints = ModelMerger(MergeConfig(**by_id)).load_models()

    assert hub.cuts == 0
    assert hub.ranges == resumed
    fetched = {name: Path(checkpoint.files[0].path).read_bytes() for name, checkpoint in checkpoints.items()}
    assert fetched == {name: (getattr(models, name) / "model.safetensors").read_bytes() for name in ("a", "b")}


def test_a_download_that_breaks_off_for_good_says_so_and_keeps_what_is_complete(
    hub: FakeHub, models: SimpleNamespace, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    pushed(hub, "org/a", write_model(models.folder / "sharded", models.tensors["a"], shards=2))
    monkeypatch.setattr("huggingface_hub.file_download.time.sleep", lambda _: None)
    hub.cut, hub.cuts = {"model-00002-of-00002.safetensors": 0}, 1000

    line = refusal(command, models.folder, "org/a")

    assert line.startswith("error: org/a: the download from the Hub broke off (")
    assert line.endswith("Run the same command again: files that are complete are kept.")
    hub.cuts = 0
    hub.asked.clear()
    ModelMerger(MergeConfig(strategy="weighted", models=[{"path": "org/a"}])).load_models()
    assert [name for name in hub.fetched if name.endswith(".safetensors")] == ["model-00002-of-00002.safetensors"]


def test_a_signal_ends_a_download_in_the_middle_of_a_file(
    hub: FakeHub, by_id: dict[str, Any], command: Command, models: SimpleNamespace
) -> None:
    hub.stalled = "model.safetensors"
    path = models.folder / "merge.json"
    path.write_text(json.dumps(by_id))

    with at_once():
        result = command("merge", path)

    hub.released.set()
    assert (result.status, result.err) == (143, "error: interrupted. Nothing was written.\n")


@pytest.mark.parametrize("how", ["HF_HUB_OFFLINE", "no connection", "status 503"])
def test_without_the_hub_the_cache_will_do(
    hub: FakeHub, by_id: dict[str, Any], monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    merger = ModelMerger(MergeConfig(**by_id))
    before = merger.plan()
    cut_off(hub, monkeypatch, how)

    plan = merger.plan()
    notes = [note for note in merger.check_compatibility() if note.where == "org/a"]

    assert plan == before
    (note,) = notes
    assert note.severity == "note"
    assert note.message.startswith("the Hub cannot be reached (")
    assert note.message.endswith(f"), so main is what the cache has, {plan.models[0].revision}.")


@pytest.mark.parametrize("how", ["HF_HUB_OFFLINE", "no connection", "status 503"])
@pytest.mark.parametrize("lacks", ["everything", "weights", "a shard"])
def test_without_the_hub_what_is_not_in_the_cache_is_said(
    hub: FakeHub, models: SimpleNamespace, command: Command, monkeypatch: pytest.MonkeyPatch, how: str, lacks: str
) -> None:
    if lacks != "everything":
        write_model(models.folder / "sharded", models.tensors["a"], shards=3)
        commit = pushed(hub, "org/a", models.folder / "sharded")
        ModelMerger(MergeConfig(strategy="weighted", models=[{"path": "org/a"}])).plan()
        snapshot = models.folder / "hub" / "models--org--a" / "snapshots" / commit
        for file in sorted(snapshot.glob("*.safetensors"))[: 1 if lacks == "a shard" else None]:
            file.unlink()
    cut_off(hub, monkeypatch, how)

    line = refusal(command, models.folder, "org/a")

    reason = {"HF_HUB_OFFLINE": "HF_HUB_OFFLINE is set", "status 503": "it answers with status 503"}.get(how, "")
    assert line.startswith(
        "error: org/a: is not on this disk, nor whole in the Hub's cache, and the Hub cannot be reached ("
    )
    assert reason in line
    assert line.endswith("Run it once with a connection, or give a directory.")


def cut_off(hub: FakeHub, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    from huggingface_hub import close_session, constants

    if how == "HF_HUB_OFFLINE":
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    elif how == "no connection":
        monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:1")
    else:
        hub.status = 503
    close_session()


def test_an_unknown_repository_is_said(hub: FakeHub, command: Command, tmp_path: Path) -> None:
    assert refusal(command, tmp_path, "org/typo") == (
        "error: org/typo: is neither a path that exists nor a repository that the Hub shows you. "
        "Check the spelling; if it is private, log in with `hf auth login` or set HF_TOKEN."
    )


def test_a_path_that_is_nearly_the_id_is_said(
    hub: FakeHub, command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "models" / "chat").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert "Check the spelling (there is ./models/chat here); if it is private" in refusal(
        command, tmp_path, "models/caht"
    )
    cut_off(hub, monkeypatch, "status 503")
    assert refusal(command, tmp_path, "models/caht").endswith("or give a directory, such as ./models/chat.")
    assert refusal(command, tmp_path, "models/quite-else").endswith("or give a directory.")


def test_a_name_that_no_repository_can_have_is_said(hub: FakeHub, command: Command, tmp_path: Path) -> None:
    line = refusal(command, tmp_path, "org/a--b")

    assert line == (
        "error: org/a--b: is neither a path that exists nor a name that a repository on the Hub can have. "
        "Check the spelling."
    )
    assert hub.asked == []


def test_an_unknown_revision_is_said(hub: FakeHub, by_id: dict[str, Any], command: Command, tmp_path: Path) -> None:
    assert refusal(command, tmp_path, "org/a@v9") == (
        "error: org/a@v9: has no revision 'v9' on the Hub. Check what stands behind the @; without it, main is taken."
    )


def test_a_gated_repository_is_said(hub: FakeHub, by_id: dict[str, Any], command: Command, tmp_path: Path) -> None:
    hub.closed = {"org/a"}

    assert refusal(command, tmp_path, "org/a") == (
        "error: org/a: is gated on the Hub. Ask for access on the page of org/a there, "
        "then log in with `hf auth login` or set HF_TOKEN."
    )


@pytest.mark.parametrize("status", [401, 403])
def test_a_hub_that_refuses_is_said(
    hub: FakeHub, by_id: dict[str, Any], command: Command, tmp_path: Path, status: int
) -> None:
    hub.status = status

    line = refusal(command, tmp_path, "org/a")

    assert "log in with `hf auth login` or set HF_TOKEN." in line


@pytest.mark.parametrize(("files", "but"), [(("pytorch_model.bin",), " (but pytorch_model.bin)"), (("README.md",), "")])
def test_a_repository_without_safetensors_is_said_and_nothing_is_fetched(
    hub: FakeHub, command: Command, tmp_path: Path, files: tuple[str, ...], but: str
) -> None:
    hub.push("org/a", {**dict.fromkeys(files, b"x"), "config.json": b"{}", "onnx/model.safetensors": b"x"})

    assert refusal(command, tmp_path, "org/a") == (
        f"error: org/a: has no safetensors weights on the Hub{but}. "
        "Give a revision or repository that has them, or convert the model and give its directory."
    )
    assert hub.fetched == []


def test_every_id_that_cannot_be_had_has_its_line(hub: FakeHub, command: Command, tmp_path: Path) -> None:
    path = tmp_path / "merge.json"
    models = [{"path": "org/one"}, {"path": "org/two"}]
    path.write_text(json.dumps({"strategy": "weighted", "models": models, "base_model": "org/three"}))

    lines = command("check", path).err.splitlines()

    assert [line.split(": ")[1] for line in lines] == ["org/one", "org/two", "org/three"]


def test_a_full_disk_is_the_outputs_error(
    hub: FakeHub, by_id: dict[str, Any], command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> str:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(tmp_path / "hub"))

    monkeypatch.setattr("huggingface_hub.snapshot_download", full)

    assert refusal(command, tmp_path, "org/a", status=4) == (
        f"error: {tmp_path / 'hub'}: No space left on device. "
        "The Hub's cache is there: free some space, or set HF_HOME to another place."
    )


def test_in_a_pipe_a_merge_by_id_says_only_what_it_did(models: SimpleNamespace) -> None:
    """As a user runs it: endpoint and cache from the environment, a process of its own."""
    with served() as hub:
        for name in ("a", "b"):
            pushed(hub, f"org/{name}", getattr(models, name))
        path = models.folder / "merge.yaml"
        path.write_text(
            "strategy: weighted\nmodels: [{path: org/a}, {path: org/b@main, name: b}]\noutput_path: merged\n"
        )
        environment = {key: value for key, value in os.environ.items() if key != "HF_HUB_OFFLINE"}
        environment |= {"HF_ENDPOINT": hub.endpoint, "HF_HOME": str(models.folder / "home"), "NO_PROXY": "127.0.0.1"}
        done = subprocess.run(
            [sys.executable, "-m", "modelmerger", "merge", str(path)],
            env=environment, cwd=models.folder, capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip

    assert done.returncode == 0
    assert all(line.startswith("note: ") for line in done.stderr.splitlines())
    assert done.stdout.startswith("merged 2 models (weighted)")
    assert load_file(models.output / "model.safetensors").keys() == random_tensors(0).keys()
