"""Row D6: no socket, unless a Hub id was named."""

import json
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from inputs.watching import watched
from modelmerger import MergeConfig, ModelMerger, merge, verify


@pytest.mark.parametrize("asked", [("check",), ("plan", "--no-trial"), ("merge",)], ids=" ".join)
def test_a_command_on_local_models_opens_no_socket_and_starts_no_process(
    models: SimpleNamespace, config: dict[str, Any], command: Callable[..., SimpleNamespace], asked: tuple[str, ...]
) -> None:
    """D6."""
    path = models.folder / "merge.json"
    path.write_text(json.dumps(config))

    with watched() as seen:
        result = command(*asked, path)

    assert result.status == 0
    assert (seen.network, seen.processes, seen.unpickled) == ([], [], [])


def test_merging_imports_no_transformers_and_reads_only_the_inputs(
    models: SimpleNamespace, config: dict[str, Any]
) -> None:
    """D6: of the folder that everything lies in, only the two models are read."""
    with watched() as seen:
        merge(MergeConfig(**config))
        verify(models.output)

    assert not [name for name in seen.imported if name.split(".")[0] in ("transformers", "huggingface_hub")]
    read = [path for path in seen.opened_in(models.folder) if not path.startswith(str(models.folder / "."))]
    allowed = tuple(f"{folder}/" for folder in (models.a, models.b, models.output))
    assert [path for path in read if not path.startswith(allowed) and path != str(models.folder)] == []
    assert seen.network == []


def test_the_watcher_sees_sockets_files_and_code(models: SimpleNamespace) -> None:
    """What the tests of this folder rest on."""
    import socket

    (models.folder / "module.py").write_text("x = 1\n")
    with watched() as seen:
        socket.socket().close()
        exec(compile((models.folder / "module.py").read_text(), str(models.folder / "module.py"), "exec"), {})

    assert seen.network
    assert seen.opened_in(models.folder) == [str(models.folder / "module.py")]
    assert seen.code_in(models.folder)


def test_load_models_check_and_plan_open_no_socket(models: SimpleNamespace, config: dict[str, Any]) -> None:
    """D6, in Python."""
    merger = ModelMerger(MergeConfig(**config))

    with watched() as seen:
        merger.check_compatibility()
        merger.plan()
        merger.load_models()

    assert (seen.network, seen.processes) == ([], [])
