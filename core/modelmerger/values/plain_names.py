"""Names of files that lead nowhere but into the directory that they are meant for."""


def is_plain_path(name: str) -> bool:
    """Whether a name stays in its directory: no empty, dot or dot-dot part, no backslash, nothing invisible."""
    parts = name.split("/")
    return all(part not in ("", ".", "..") for part in parts) and "\\" not in name and name.isprintable()


def is_plain_name(name: str) -> bool:
    """Whether a name is plain, and that of a file right in the directory, in no folder of it."""
    return is_plain_path(name) and "/" not in name
