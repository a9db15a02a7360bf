import pytest
from modelmerger.values.plain_names import is_plain_name, is_plain_path


@pytest.mark.parametrize("name", ["a", "a/b", "licenses/org/name/LICENSE", ".hidden", "a b", "نموذج.json", "..a"])
def test_plain_names(name: str) -> None:
    assert is_plain_path(name)
    assert is_plain_name(name) == ("/" not in name)


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", "../a", "a/../b", "/etc/passwd", "a//b", "a/", "./a", "a\\b", "a\0", "a\nb", "a\u202eb", "\ud800"],
)
def test_names_that_are_not(name: str) -> None:
    assert not is_plain_path(name)
    assert not is_plain_name(name)
