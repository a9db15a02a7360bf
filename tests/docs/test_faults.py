"""The page of faults says which tests hold each of its rows, and none is without one."""

from docs.faults import PAGE, held, rows, written_anew


def test_the_page_names_the_tests_as_they_are() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert text == written_anew(text), "run: python -m tests.docs.faults"


def test_every_row_is_held_by_a_test_and_every_such_test_by_a_row() -> None:
    named = rows(PAGE.read_text(encoding="utf-8"))
    assert len(named) == len(set(named)) > 60
    assert sorted(set(named) ^ held().keys()) == []
