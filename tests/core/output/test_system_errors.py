import errno
import os
from pathlib import Path

import pytest
from modelmerger import OutputError
from modelmerger.output.system_errors import output_errors


@pytest.mark.parametrize(
    ("number", "sentence"),
    [
        (errno.ENOSPC, "cannot be written: No space left on device. Free some space, then run the same command again."),
        (errno.EDQUOT, "cannot be written: Disk quota exceeded. Free some space, then run the same command again."),
        (errno.EIO, "cannot be written: Input/output error. Check the disk, then run the same command again."),
    ],
)
def test_what_the_system_says_becomes_a_sentence(number: int, sentence: str) -> None:
    with pytest.raises(OutputError) as raised, output_errors(Path("/out/x")):
        raise OSError(number, os.strerror(number))

    assert str(raised.value) == f"/out/x: {sentence}"
