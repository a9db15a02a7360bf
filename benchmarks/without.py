"""Run the modelmerger command with one of its costs left out, so that the cost can be measured. Its output is not to be
used.

python benchmarks/without.py {digests,fsync,finite-check} merge CONFIG
"""

import gc
import os
import sys

from modelmerger.__main__ import run


def leave_out(cost: str) -> None:
    os.environ["OPENBLAS_NUM_THREADS"] = (
        "1"  # this and the next as the command line does, for torch is imported here already
    )
    gc.disable()
    from modelmerger.engine import arithmetic
    from modelmerger.engine import blocks as engine
    from modelmerger.engine import tensors as merging

    if cost == "digests":
        engine.PieceDigests.add = lambda *_: None
    elif cost == "fsync":
        os.fsync = lambda _: None
    elif cost == "finite-check":
        merging.has_finite_sum = arithmetic.has_finite_sum = lambda _: True
    else:
        raise SystemExit(f"{cost} is not one of digests, fsync, finite-check")


if __name__ == "__main__":
    leave_out(sys.argv.pop(1))
    run()
