"""What `from modelmerger import …` offers."""

import pkgutil

import modelmerger


def test_no_public_name_is_a_module_that_would_replace_it_when_imported() -> None:
    modules = {module.name for module in pkgutil.iter_modules(modelmerger.__path__)}
    assert not modules & set(modelmerger.__all__)


def test_every_public_name_can_be_had() -> None:
    assert [name for name in modelmerger.__all__ if getattr(modelmerger, name, None) is None] == []
