"""One merge by an executor, and the CPU seconds of each of its processes before its first task and after that, as JSON.

    python benchmarks/executed.py CONFIG

Where the config says `ray`, a cluster of this machine is started first, and is at rest before the merge begins.
"""

import json
import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

REST, ASLEEP = 0.5, 0.02
"""Ray's processes are at rest once they use less CPU than that in so many seconds."""
SECOND = os.sysconf("SC_CLK_TCK")
DRIVER, WORKER, DAEMONS = "driver", "worker", "daemons"
Used = Mapping[int, tuple[str, float]]


def used() -> Used:
    """What this process and each of its descendants has used so far: what kind of process it is, and CPU seconds."""
    parents, found = {}, {os.getpid(): (DRIVER, time.process_time())}
    for entry in filter(str.isdecimal, os.listdir("/proc")):
        try:
            fields = Path("/proc", entry, "stat").read_text().rpartition(")")[2].split()
            title = Path("/proc", entry, "cmdline").read_bytes()
        except OSError:
            continue
        kind = WORKER if title.startswith(b"ray::Node") else DAEMONS
        parents[int(entry)] = int(fields[1]), (kind, sum(map(int, fields[11:15])) / SECOND)  # with children that ended
    grown = True
    while grown:
        new = {pid: at for pid, (parent, at) in parents.items() if parent in found and pid not in found}
        found |= new
        grown = bool(new)
    return found


def between(before: Used, after: Used) -> dict[str, float]:
    """CPU seconds of each kind of process from one moment to a later one."""
    seconds = dict.fromkeys((DRIVER, WORKER, DAEMONS), 0.0)
    for pid, (kind, total) in after.items():
        seconds[kind] += total - (before[pid][1] if pid in before else 0.0)
    return seconds


def start_ray() -> None:
    """Starts a cluster, and returns when its processes rest."""
    import ray

    told: dict[str, Any] = {"include_dashboard": False, "log_to_driver": False, "logging_level": "ERROR"}
    ray.init("local", num_cpus=len(os.sched_getaffinity(0)), **told)
    ray.get(ray.put(None))  # what Ray imports when it is used first
    resting = 0
    while resting < 4:
        before = used()
        time.sleep(REST)
        resting = resting + 1 if between(before, used())[DAEMONS] < ASLEEP else 0


def main(config: Path) -> int:
    moments: dict[str, Used] = {}
    if on_ray := json.loads(config.read_text())["options"]["executor"] == "ray":
        start_ray()
    moments["begin"] = used()
    from modelmerger import MergeConfig, merge
    from modelmerger.engine.work.schedule import Schedule

    take = Schedule.take

    def first(self: Schedule, *given: Any, **told: Any) -> Any:
        if "first" not in moments:
            moments["first"] = used()
        return take(self, *given, **told)

    Schedule.take = first  # type: ignore[method-assign]  # which notes the time, and is put in its place
    if on_ray:
        import ray

        kill = ray.kill

        def last(process: Any) -> None:
            moments["end"] = used()  # what the worker used is its own until it is gone
            kill(process)

        ray.kill = last
    merge(MergeConfig.from_file(config))
    moments["end"] = {**moments.get("end", {}), os.getpid(): (DRIVER, time.process_time())}
    phases = {
        "start": between({}, moments["begin"]),
        "opening": between(moments["begin"], moments["first"]),
        "work": between(moments["first"], moments["end"]),
    }
    print(json.dumps(phases))
    return 0


if __name__ == "__main__":
    raise SystemExit(main(Path(sys.argv[1])))
