"""What stands in the place of a file that somebody meant to have: told by its first bytes."""

import re

FIRST = 512
"""Bytes at the beginning of a file that are enough to know what it is."""

_APPLE_DOUBLE = b"\x00\x05\x16\x07"
_BEGINNINGS = b"v./\0<\xef \t\n\r\f\v4ACEFIR"
"""The first bytes of all of these, with which few other files begin."""
_POINTER = rb"version https?://(?:git-lfs\.github\.com|hawser\.github\.com|git-media\.io)/"
_ANNEX = rb"(?:\.\./)*(?:\.git)?/annex/objects/"
_BEFORE_MARKUP = rb"(?s)(?:\xef\xbb\xbf)?(?:\s|<!--.*?-->|<\?xml[^>]*\?>)*+"
_PAGE = rb"(?i)<(?:!doctype\s+html|html|head|body)\b"
_SERVER_ERROR = rb"<Error>\s*<Code>"
_HUB_ANSWER = (
    rb"(?:Entry not found|Repository not found|Revision not found|File not found|404: Not Found"
    rb"|Invalid (?:username or password|credentials)|Access to model .{1,200}? is restricted"
    rb"|Cannot access gated repo)\b"
)
_AGAIN = "download it again, signed in where the model needs that"


def what_it_is(first_bytes: bytes) -> str | None:
    """What a file is in truth, with what to do, to be said after "is"; None where its beginning says nothing of that
    kind.

    first_bytes: its first `FIRST` bytes, or all of a shorter one. Known are what git leaves in place of large files,
    what macOS keeps beside a file, and the answers of servers that were saved under a file's name.
    """
    if first_bytes[:1] not in _BEGINNINGS:
        return None
    if re.match(_POINTER, first_bytes):
        return "a Git LFS pointer and not the file itself. Run `git lfs pull` where it was cloned"
    if re.match(_ANNEX, first_bytes):
        return "a git-annex pointer and not the file itself. Run `git annex get` where it was cloned"
    if first_bytes.startswith(_APPLE_DOUBLE):
        return "an AppleDouble file, where macOS keeps what belongs to another file. Delete it"
    before = re.match(_BEFORE_MARKUP, first_bytes)
    markup = first_bytes[before.end() if before else 0 :]
    if re.match(_PAGE, markup):
        return f"an HTML page, most likely what a server answered in place of the file: {_AGAIN}"
    if re.match(_SERVER_ERROR, markup) or re.match(_HUB_ANSWER, first_bytes):
        return f"what a server answered in place of the file: {_AGAIN}"
    return None
