"""A layout of two files, the blocks of the first one, and a merge that stops with some of them written."""

from pathlib import Path

from modelmerger import Layout, OutputFile
from modelmerger.output.digests import pieces_of_bytes
from modelmerger.output.staging import Staging
from modelmerger.values.layout import BLOCK
from modelmerger.values.work.block_record import BlockRecord

SIZE = BLOCK + 1000
LAYOUT = Layout("test", [OutputFile("weights", SIZE, (), ()), OutputFile("empty", 0, (), ())])
BLOCKS = [b"a" * BLOCK, b"b" * 1000]
PIECES = [pieces_of_bytes(BLOCKS[0]), pieces_of_bytes(BLOCKS[1][:300]) + pieces_of_bytes(BLOCKS[1][300:])]


def stage(target: Path, blocks: list[int], plan: str = "plan") -> None:
    """Writes some blocks of the first file and leaves the staging directory behind."""
    with Staging(target, plan, LAYOUT) as staging:
        handle = staging.open_file(0)
        for block in blocks:
            staging.write(handle, 0, memoryview(BLOCKS[block]), block * BLOCK)
            record = BlockRecord(PIECES[block], {"counted": block})
            staging.flush(handle, 0, block * BLOCK, len(BLOCKS[block]))
            staging.record(0, block, record)
        staging.close_file(handle, 0)
