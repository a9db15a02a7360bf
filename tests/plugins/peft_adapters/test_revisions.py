"""The revision of its base that an adapter names becomes a part of a path: it never leads out of the cache."""

import builtins
import os
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from huggingface_hub import constants
from modelmerger import InputError
from plugins.peft_adapters.spoiling import change, merger

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def cache(trained: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of the Hub with one commit of the model some/base, which has no branch."""
    repository = tmp_path / "cache" / "models--some--base"
    shutil.copytree(trained.base, repository / "snapshots" / COMMIT)
    (repository / "refs").mkdir()
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    return repository


@pytest.mark.parametrize("merge_adapters", [False, True])
@pytest.mark.parametrize(
    "revision",
    [
        *(
            "../secret",
            "..",
            "a/../../../secret",
            "/etc/passwd",
            "//x",
            "a/",
            "\0",
            "main\0",
            "a\\..\\b",
            "C:x",
            "a b\n",
        ),
        *(".hidden", "a/./b", "x" * 5000),
    ],
    ids=range(14),
)
def test_what_is_no_revision_is_refused_before_anything_is_opened(
    adapter: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, revision: str, merge_adapters: bool
) -> None:
    (cache / "secret").write_text(COMMIT)
    change(adapter, base_model_name_or_path="some/base", revision=revision)
    opened: list[str] = []

    def watch(original: Any) -> Any:
        def seen(path: Any, *rest: Any, **more: Any) -> Any:
            opened.append(str(path))
            return original(path, *rest, **more)

        return seen

    for module, name in ((builtins, "open"), (os.path, "isfile"), (os, "stat"), (os, "open")):
        monkeypatch.setattr(module, name, watch(getattr(module, name)))
    with pytest.raises(InputError, match=r"that is no branch, tag or commit\. Correct it") as refusal:
        merger(adapter, peft_config={"merge_adapters": merge_adapters}).check_compatibility()
    monkeypatch.undo()
    (problem,) = refusal.value.problems
    assert problem.where == str(adapter / "adapter_config.json")
    assert not [path for path in opened if str(cache) in path or "passwd" in path or "secret" in path]


@pytest.mark.parametrize("revision", ["main", "refs/pr/1", "feature/x", "v1.0", "feature-2_x", COMMIT, None, "", 7])
def test_branches_tags_and_commits_are_found(adapter: Path, cache: Path, revision: Any) -> None:
    branch = cache / "refs" / (revision if revision and isinstance(revision, str) else "main")
    if revision != COMMIT:
        branch.parent.mkdir(parents=True, exist_ok=True)
        branch.write_text(COMMIT)
    change(adapter, base_model_name_or_path="some/base", revision=revision)
    bases = [model.base for model in merger(adapter).load_models().values() if model.base is not None]
    assert [base.location.directory.name for base in bases] == [COMMIT]
