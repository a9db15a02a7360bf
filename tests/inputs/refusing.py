"""The fixture `refused`: what must be refused is refused by `check` as by `merge`, in time, in one line, and leaves nothing behind."""

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from inputs.watching import Seen, at_once, watched


@pytest.fixture
def refused(command: Callable[..., SimpleNamespace], tmp_path: Path) -> Callable[..., SimpleNamespace]:
    """`refused(config)` runs check and merge. Returns the lines without `error: `, and what `merge` was seen to do."""

    def run(config: Mapping[str, Any], status: int = 3, lines: int = 1) -> SimpleNamespace:
        path, output = tmp_path / "config of refused.json", tmp_path / "output of refused"
        path.write_text(json.dumps({**config, "output_path": str(output)}))
        said = set()
        for name in ("check", "merge"):
            seen = Seen()
            with at_once(), watched(seen):
                result = command(name, path)
            assert (result.status, result.out) == (status, ""), (name, result)
            assert "Traceback" not in result.err
            errors = [line for line in result.err.splitlines() if not line.startswith(("warning: ", "note: "))]
            assert len(errors) == lines, errors
            assert all(line.startswith("error: ") and len(line) <= 307 and line.isprintable() for line in errors), (
                errors
            )
            said.add("\n".join(line.removeprefix("error: ") for line in errors))
        assert not os.path.lexists(output)
        assert [entry.name for entry in tmp_path.iterdir() if "output of refused" in entry.name] == []
        assert len(said) == 1, said
        assert (seen.network, seen.processes, seen.unpickled, seen.code_in(tmp_path)) == ([], [], [], [])
        return SimpleNamespace(text=said.pop(), seen=seen)

    return run


def weighted(*paths: object, **more: Any) -> dict[str, Any]:
    """The config of a weighted merge of these paths."""
    return {"strategy": "weighted", "models": [{"path": str(path)} for path in paths], **more}
