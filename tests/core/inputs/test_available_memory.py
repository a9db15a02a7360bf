"""The memory that is left, against written `proc` and `sys` folders."""

from pathlib import Path

import pytest
from modelmerger.inputs.available_memory import available_memory

GIB = 1 << 30
MEMINFO = f"MemTotal: {64 << 20} kB\nMemFree: 5 kB\nMemAvailable:   {8 << 20} kB\n"


def write(root: Path, files: dict[str, str]) -> Path:
    for name, content in ({"proc/meminfo": MEMINFO} | files).items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content)
    return root


def group(folder: str, limit: int | str, used: int, idle: int) -> dict[str, str]:
    """A control group of version 2."""
    files = {"memory.max": limit, "memory.current": used, "memory.stat": f"anon 5\ninactive_file {idle}\n"}
    return {f"sys/fs/cgroup/{folder}{name}": f"{content}\n" for name, content in files.items()}


OLD = {
    "memory.limit_in_bytes": 4 * GIB,
    "memory.usage_in_bytes": 3 * GIB,
    "memory.stat": f"inactive_file 7\ntotal_inactive_file {GIB}",
}


@pytest.mark.parametrize(
    ("files", "left"),
    [
        ({}, 8 * GIB),
        ({"proc/self/cgroup": "0::/\n"}, 8 * GIB),
        ({"proc/self/cgroup": "0::/\n"} | group("", 6 * GIB, 3 * GIB, GIB), 4 * GIB),
        ({"proc/self/cgroup": "0::/a/b\n"} | group("a/b/", "max", GIB, 0) | group("a/", 2 * GIB, GIB, 0), GIB),
        ({"proc/self/cgroup": "0::/a/b\n"} | group("a/b/", 3 * GIB, GIB, 0) | group("a/", 64 * GIB, 0, 0), 2 * GIB),
        ({"proc/self/cgroup": "0::/a\n"} | group("a/", GIB, 2 * GIB, 0), 0),
        (
            {"proc/self/cgroup": "5:cpu,cpuacct:/c\n4:memory:/d\n"}
            | {f"sys/fs/cgroup/memory/d/{name}": str(content) for name, content in OLD.items()},
            2 * GIB,
        ),
        ({"proc/meminfo": "MemTotal: 7 kB\n"}, 0),
    ],
    ids=["no groups", "top", "limited top", "limited around", "limited", "beyond its limit", "version 1", "unsaid"],
)
def test_the_least_that_anyone_leaves_is_available(files: dict[str, str], left: int, tmp_path: Path) -> None:
    assert available_memory(write(tmp_path, files)) == left


def test_a_system_that_does_not_say_has_none(tmp_path: Path) -> None:
    assert available_memory(tmp_path) == 0


def test_this_machine_has_some() -> None:
    assert available_memory() > 0
