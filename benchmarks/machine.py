"""What the figures were measured on."""

import json
import os
import platform
import subprocess
import sys
from pathlib import Path

PACKAGES = ("modelmerger", "mergekit", "torch", "transformers", "safetensors", "numpy")
ASK_VERSIONS = """
import json, sys
from importlib.metadata import PackageNotFoundError, version
found = {"python": sys.version.split()[0]}
for name in sys.argv[1:]:
    try:
        found[name] = version(name)
    except PackageNotFoundError:
        pass
print(json.dumps(found))
"""


def describe(cache: Path, mergekit: Path | None) -> dict[str, object]:
    """CPU, memory, kernel, filesystem of `cache`, and the versions in both environments."""
    memory = next(line for line in Path("/proc/meminfo").read_text().splitlines() if line.startswith("MemTotal:"))
    found: dict[str, object] = {
        "cpu": cpu_model(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_bytes": int(memory.split()[1]) * 1024,
        "kernel": f"{platform.system()} {platform.release()}",
        "filesystem": filesystem(cache),
        "load_average_at_start": round(os.getloadavg()[0], 2),
        "modelmerger_environment": versions(Path(sys.executable)),
    }
    if mergekit is not None:
        found["mergekit_environment"] = versions(mergekit.absolute().parent / "python")
    return found


def cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def filesystem(directory: Path) -> str:
    """Type of the filesystem that holds `directory`."""
    device = os.stat(directory).st_dev
    found = "unknown"
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, place, kind, *_ = line.split()
        try:
            if os.stat(place.encode().decode("unicode_escape")).st_dev == device:
                found = kind
        except OSError:
            continue
    return found


def versions(python: Path) -> dict[str, str]:
    if not python.exists():
        return {}
    answer = subprocess.run([python, "-c", ASK_VERSIONS, *PACKAGES], check=True, capture_output=True, text=True)
    found: dict[str, str] = json.loads(answer.stdout)
    return found
