"""One browser for all tests of the page."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.plugins.report_page.browser import Browser, Page, browser, find_chromium


@pytest.fixture(scope="session")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    executable = find_chromium()
    if executable is None:
        pytest.skip("no Chromium; Debian has it in the package 'chromium'")
    with browser(executable, tmp_path_factory.mktemp("chromium")) as found:
        yield found


@pytest.fixture
def tab(chromium: Browser) -> Page:
    return chromium.new_page()


@pytest.fixture
def page_file(tmp_path: Path) -> Path:
    return tmp_path / "report.html"
