"""What joining two large tokenizers takes, measured in a process of its own."""

import json
import tempfile
import time
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

MIB = 1 << 20


def measured_apart(*values: Mapping[str, Any]) -> tuple[float, float]:
    """Seconds of CPU, and MiB of peak memory beyond that of the imported modules."""
    with tempfile.TemporaryDirectory() as name, ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        directories = [Path(name) / str(place) for place in range(len(values))]
        for directory, value in zip(directories, values, strict=True):
            directory.mkdir()
            (directory / "tokenizer.json").write_text(json.dumps(value, ensure_ascii=False), encoding="utf-8")
        return pool.submit(_joined, directories).result()


def _joined(directories: list[Path]) -> tuple[float, float]:
    import regex  # noqa: F401 (what is imported beforehand)
    import tokenizers  # noqa: F401 (as well)
    from modelmerger_plugins.tokenizer.union.documents import read_document
    from modelmerger_plugins.tokenizer.union.files import union_files
    from modelmerger_plugins.tokenizer.union.joining import union_of

    before, started = _peak(), time.process_time()
    union = union_of([read_document(directory, directory.name) for directory in directories])
    union_files(union, None, None)
    return time.process_time() - started, _peak() - before


def _peak() -> float:
    """MiB. Not of `getrusage`, where a process begins with the peak of the one that started it."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) * 1024 / MIB for line in lines if line.startswith("VmHWM:"))
