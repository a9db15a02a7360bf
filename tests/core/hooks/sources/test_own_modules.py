"""The digest of a strategy covers the modules of its own project that it imports."""

from collections.abc import Callable
from pathlib import Path

import pytest
from modelmerger.hooks.sources.own_modules import own_modules
from modelmerger.testing import plan_in_memory
from torch import ones

STRATEGY = """
from modelmerger import Traits, hookimpl
{imported}
traits = Traits()

@hookimpl
def find_coefficients(weights):
    {lazily}
    return [factor for _ in weights]
"""
HELPER = "factor = 0.5\n"


def digest_of(name: str) -> str:
    return plan_in_memory(name, [{"w": ones(2)}]).plan.digest


def package(folder: Path, name: str, **modules: str) -> None:
    for module, source in {"__init__": "", **modules}.items():
        file = folder / name / f"{module}.py"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(source)


CASES = [
    ("from {package}.helper import factor", "pass", "helper"),
    ("from .helper import factor", "pass", "helper"),
    ("from {package}.between import factor", "pass", "helper"),
    ("from {package} import between as b; factor = b.factor", "pass", "helper"),
    ("", "from {package}.helper import factor", "helper"),
    ("from {package}.helper import factor", "pass", "__init__"),
    ("from {package}.helper import factor", "pass", "strategy"),
]


@pytest.mark.parametrize("number", range(len(CASES)))
def test_the_digest_changes_with_a_module_of_the_package(distribution: Callable[..., Path], number: int) -> None:
    imported, lazily, changed = CASES[number]
    name = f"acme_own_{number}"  # what was imported under a name stays imported
    site = distribution(name, "1.0", f"[modelmerger.strategies]\n{name} = {name}.strategy\n")
    source = STRATEGY.format(imported=imported, lazily=lazily).format(package=name)
    between = "from .helper import factor\n"
    package(site, name, strategy=source, helper=HELPER, between=between, unused="")
    before = digest_of(name)
    (site / f"{name}/unused.py").write_text("factor = 3\n")
    assert digest_of(name) == before
    file = site / f"{name}/{changed}.py"
    file.write_text(file.read_text() + "\n# another one")
    assert digest_of(name) != before


def test_the_digest_changes_with_a_module_beside_the_strategy(distribution: Callable[..., Path]) -> None:
    source = STRATEGY.format(imported="from acme_beside_helper import factor", lazily="")
    points = "[modelmerger.strategies]\nacme_beside = acme_beside\n"
    site = distribution("acme-beside", "1.0", points, acme_beside=source, acme_beside_helper=HELPER)
    before = digest_of("acme_beside")
    (site / "acme_beside_helper.py").write_text("factor = 0.25\n")
    assert digest_of("acme_beside") != before


def test_in_site_packages_only_what_the_distribution_ships_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = tmp_path / "site-packages"
    package(site, "acme_shipped", strategy="import acme_shared, acme_strange, json, torch, modelmerger\n")
    for name in ("acme_shared", "acme_strange"):
        (site / f"{name}.py").write_text(HELPER)
    monkeypatch.syspath_prepend(str(site))
    file = site / "acme_shipped/strategy.py"
    assert own_modules("acme_shipped.strategy", file).keys() == {"acme_shipped"}
    shipped = own_modules("acme_shipped.strategy", file, {"acme_shipped", "acme_shared"})
    assert shipped.keys() == {"acme_shipped", "acme_shared"}


def test_a_distribution_lists_what_it_ships(distribution: Callable[..., Path]) -> None:
    from modelmerger.hooks.registry import Registry

    site = distribution("acme-listed", "1.0", "[modelmerger.strategies]\nacme_listed = acme_listed\n")
    record = "acme_listed.py,,\nacme_parts/__init__.py,,\nacme_parts/a.py,,\nacme_listed-1.0.dist-info/RECORD,,\n"
    (site / "acme_listed-1.0.dist-info/RECORD").write_text(record)
    for name in ("acme_listed.py", "acme_parts/__init__.py", "acme_parts/a.py"):
        (site / name).parent.mkdir(exist_ok=True)
        (site / name).write_text("")
    assert Registry.installed().find("strategy", "acme_listed").shipped == {"acme_listed", "acme_parts"}
    (site / "acme_listed-1.0.dist-info/RECORD").write_text("\n")  # as a disk that was full leaves it
    assert Registry.installed().find("strategy", "acme_listed").shipped == set()


def test_modules_that_import_each_other_or_cannot_be_parsed_are_read_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package(tmp_path, "acme_round", a="from . import b, c\n", b="from .a import x\n", c="def (\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    found = own_modules("acme_round.a", tmp_path / "acme_round/a.py")
    assert found == {"acme_round": b"", "acme_round.b": b"from .a import x\n", "acme_round.c": b"def (\n"}
