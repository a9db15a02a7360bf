"""What `from modelmerger import …` offers."""

import pkgutil

import modelmerger

PUBLIC = [
    "Answer",
    "Checkpoint",
    "Coefficients",
    "ConfigError",
    "DialectScores",
    "Donor",
    "FileCheckpoint",
    "Finding",
    "HOOKS_VERSION",
    "InputChangedError",
    "InputError",
    "LanguageModel",
    "Layout",
    "LoadContext",
    "Location",
    "MergeConfig",
    "MergeError",
    "MergePlan",
    "MergeReport",
    "MergedUpdates",
    "ModelCompatibilityError",
    "ModelMerger",
    "ModelReference",
    "NumericError",
    "Operation",
    "OutputError",
    "OutputFile",
    "OutputTensor",
    "Placement",
    "PluginError",
    "Problem",
    "Sample",
    "Settings",
    "SliceWork",
    "StoredTensor",
    "Subject",
    "TensorInfo",
    "ThresholdError",
    "Traits",
    "UnmeasurableError",
    "ValidationReport",
    "ValidationSettings",
    "check_model_compatibility",
    "hookimpl",
    "merge",
    "read_beside",
    "verify",
]


def test_no_public_name_is_a_module_that_would_replace_it_when_imported() -> None:
    modules = {module.name for module in pkgutil.iter_modules(modelmerger.__path__)}
    assert not modules & set(modelmerger.__all__)


def test_every_public_name_can_be_had() -> None:
    assert [name for name in modelmerger.__all__ if getattr(modelmerger, name, None) is None] == []


def test_the_public_names_are_these() -> None:
    """A name more or less is a change that users must hear of, in CHANGELOG.md."""
    assert sorted(modelmerger.__all__) == PUBLIC
