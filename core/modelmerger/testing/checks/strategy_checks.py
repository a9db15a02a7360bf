"""The checks of strategies, in order, and to which strategies each applies."""

import attrs

from modelmerger.testing.checks import strategy_bits as bits
from modelmerger.testing.checks import strategy_config as config
from modelmerger.testing.checks import strategy_cores as cores
from modelmerger.testing.checks import strategy_laws as laws
from modelmerger.testing.checks import strategy_terms as terms
from modelmerger.testing.checks import strategy_values as values
from modelmerger.testing.checks.check import Check
from modelmerger.testing.checks.strategy import StrategyUnderTest


def _merges(strategy: StrategyUnderTest) -> bool:
    return strategy.merges_tensors


def _keeps_equals(strategy: StrategyUnderTest) -> bool:
    return strategy.merges_tensors and (not strategy.traits.wants_base or "identity" in strategy.promises)


def _adds_to_a_base(strategy: StrategyUnderTest) -> bool:
    return strategy.merges_tensors and strategy.traits.wants_base


def _weighs(strategy: StrategyUnderTest) -> bool:
    return strategy.merges_tensors and strategy.traits.weights


def _takes_slices(strategy: StrategyUnderTest) -> bool:
    return "merge_tensor" in strategy.declared.hooks


def _is_symmetric(strategy: StrategyUnderTest) -> bool:
    several = strategy.count > 1 and not strategy.traits.ordered
    return strategy.merges_tensors and several and not strategy.by_chance


def _is_linear(strategy: StrategyUnderTest) -> bool:
    says_coefficients = strategy.strategy.linear and not strategy.traits.gram
    return says_coefficients or "linearity" in strategy.promises


def _is_homogeneous(strategy: StrategyUnderTest) -> bool:
    return _is_linear(strategy) or "homogeneity" in strategy.promises


def _measures(strategy: StrategyUnderTest) -> bool:
    return "measure_tensor" in strategy.declared.hooks


def _merges_cores(strategy: StrategyUnderTest) -> bool:
    return strategy.traits.wants_base and "merge_cores" in strategy.declared.hooks


def _splits(strategy: StrategyUnderTest) -> bool:
    return strategy.strategy.splits


def _has_model_options(strategy: StrategyUnderTest) -> bool:
    cls = strategy.declared.model_options
    return cls is not None and bool(attrs.fields(cls))


def _has_options(strategy: StrategyUnderTest) -> bool:
    cls = strategy.declared.options
    return cls is not None and bool(attrs.fields(cls))


STRATEGY_CHECKS = (
    Check(config.check_options, _has_options),
    Check(config.check_model_options, _has_model_options),
    Check(config.check_number_of_models, _merges),
    Check(config.check_base_model, _merges),
    Check(values.check_shapes, _merges),
    Check(values.check_equal_models, _keeps_equals),
    Check(values.check_unchanged_base, _adds_to_a_base),
    Check(values.check_one_hot_weights, _weighs),
    Check(values.check_transposed_inputs, _merges),
    Check(bits.check_inputs_are_kept, _takes_slices),
    Check(bits.check_no_shared_storage, _takes_slices),
    Check(bits.check_same_bits_twice, _merges),
    Check(bits.check_global_random_state, _merges),
    Check(bits.check_slices_and_workers, _merges),
    Check(bits.check_resumed, _merges),
    Check(values.check_zeros, _merges),
    Check(values.check_opposites, _merges),
    Check(values.check_near_the_largest_float16, _merges),
    Check(values.check_huge_element, _merges),
    Check(laws.check_permutation, _is_symmetric),
    Check(laws.check_linearity, _is_linear),
    Check(laws.check_homogeneity, _is_homogeneous),
    Check(laws.check_measurements_add_up, _measures),
    Check(cores.check_cores, _merges_cores),
    Check(terms.check_terms, _splits),
)
"""In the order in which they run: what is easiest to mend first."""
