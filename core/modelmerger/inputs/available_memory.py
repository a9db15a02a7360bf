"""How much memory this process may still take: what the system says, and the control groups that it is in."""

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path

_LIMITS = {  # of the two versions of control groups: limit, what is used, and the part of that which can be given back
    "memory.max": ("memory.current", "inactive_file"),
    "memory.limit_in_bytes": ("memory.usage_in_bytes", "total_inactive_file"),
}


def available_memory(root: Path = Path("/")) -> int:
    """In bytes; 0 where the system does not say. root: where `proc` and `sys` are."""
    with contextlib.suppress(OSError):
        found = re.search(r"^MemAvailable:\s+(\d+) kB$", (root / "proc/meminfo").read_text(), re.MULTILINE)
        return max(0, min([int(found[1]) << 10 if found else 0, *_left_in_groups(root)]))
    return 0


def _left_in_groups(root: Path) -> Iterator[int]:
    """What is left under the limit of each control group that the process is in, and of those around it."""
    for folder in _groups(root):
        for limit, (used, reclaimable) in _LIMITS.items():
            with contextlib.suppress(OSError, ValueError):  # no such file, or the word "max"
                most, taken = (int((folder / name).read_text()) for name in (limit, used))
                idle = re.search(rf"^{reclaimable} (\d+)$", (folder / "memory.stat").read_text(), re.MULTILINE)
                yield most - taken + (int(idle[1]) if idle else 0)


def _groups(root: Path) -> Iterator[Path]:
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        top = root / "sys/fs/cgroup" / ("memory" if controllers else "")
        group = top / path.strip("/")
        yield group
        yield from (folder for folder in group.parents if folder == top or top in folder.parents)
