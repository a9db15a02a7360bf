"""The memory of a process, as the system counts it: in a process of its own, whose peak nobody else has raised."""

import json
import subprocess
import sys

CODE = """
import json
from modelmerger.engine.memory.resident import MAPPED, forget_peak, give_back, map_from, resident
map_from(MAPPED)
found = [resident()]
many = bytearray(MAPPED * 10)
many[::4096] = b"x" * len(many[::4096])
found.append(resident())
del many
give_back()
found.append(resident())
forget_peak()
found.append(resident())
print(json.dumps([MAPPED, found]))
"""


def test_what_is_used_counts_and_what_is_freed_goes_back() -> None:
    done = subprocess.run([sys.executable, "-c", CODE], stdout=subprocess.PIPE, check=True)
    size, (before, used, freed, forgotten) = json.loads(done.stdout)
    assert used[0] - before[0] >= 9.9 * size
    assert freed[0] - before[0] <= size / 2
    assert freed[1] >= used[0] - size / 10  # the system counts in batches
    assert forgotten[1] - before[0] <= size / 2
