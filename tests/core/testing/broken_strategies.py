"""A strategy for each check that it does not pass, all else being sound."""

import itertools
from typing import Any

import numpy as np
import torch
from attrs import define, frozen
from modelmerger import Problem, Terms, Traits, hookimpl


class Mean:
    """Sound: what the others break."""

    traits = Traits(models=(1, None))

    @hookimpl
    def merge_tensor(self, tensors: Any) -> Any:
        return self.change(sum(tensors) / len(tensors), tensors)

    def change(self, mean: Any, tensors: Any) -> Any:
        return mean


class Updates(Mean):
    traits = Traits(models=(1, None), inputs="updates")


class Linear:
    traits = Traits(models=(1, None))

    @hookimpl
    def find_coefficients(self, weights: Any) -> Any:
        return [weight / sum(weights) for weight in weights]


class AnyOption(Mean):
    @frozen
    class Options:
        power: Any = 1.0


class MutableOptions(Mean):
    @define
    class Options:
        power: float = 1.0


class AnyModelOption(Mean):
    @frozen
    class ModelOptions:
        density: Any = 1.0


class MutableModelOptions(Mean):
    @define
    class ModelOptions:
        density: float = 1.0


class NeedsTwo(Mean):
    def change(self, mean: Any, tensors: Any) -> Any:
        return tensors[1] * 0 + mean


class AsksForBase(Mean):
    @hookimpl
    def check_config(self, settings: Any) -> Any:
        if settings.base_model is None:
            yield Problem("is missing", "base_model")


class MatricesAlone(Mean):
    traits = Traits(models=(1, None), granularity="whole")

    def change(self, mean: Any, tensors: Any) -> Any:
        _, _ = mean.shape
        return mean


class Spread(Mean):
    """Not a number for tensors of one element."""

    traits = Traits(models=(1, None), granularity="whole")

    def change(self, mean: Any, tensors: Any) -> Any:
        return mean + 0 * mean.std() if mean.numel() else mean


class Sum(Mean):
    def change(self, mean: Any, tensors: Any) -> Any:
        return mean * len(tensors)


class Addend(Updates):
    def change(self, mean: Any, tensors: Any) -> Any:
        return mean + 0.01


class NoWeights(Linear):
    @hookimpl
    def find_coefficients(self, weights: Any) -> Any:
        return [1 / len(weights)] * len(weights)


class Halved(Mean):
    """The result is not the only model that counts."""

    def change(self, mean: Any, tensors: Any) -> Any:
        return mean / 2 if len(tensors) == 1 else mean


class ByPlace(Mean):
    @hookimpl
    def merge_tensor(self, tensors: Any, offset: int, shape: Any) -> Any:
        if len(shape) != 2:
            return sum(tensors) / len(tensors)
        columns = (torch.arange(offset, offset + tensors[0].numel()) % shape[1]) * 1e-3
        return sum(tensors) / len(tensors) + columns.to(tensors[0].dtype) * (tensors[0] - tensors[-1])


class InPlace(Mean):
    def change(self, mean: Any, tensors: Any) -> Any:
        tensors[0].mul_(2)
        return mean


class InPlaceByNumpy(Mean):
    """Which torch does not notice."""

    def change(self, mean: Any, tensors: Any) -> Any:
        tensors[0].numpy()[:] = 0
        return mean


class MeasuresInPlace(Mean):
    @hookimpl
    def measure_tensor(self, tensors: Any) -> Any:
        tensors[0].numpy()[:] *= 2
        return torch.ones(1, dtype=torch.float64)


class GivesInput(Mean):
    def change(self, mean: Any, tensors: Any) -> Any:
        return tensors[0].view(-1)


_buffer = torch.empty(1 << 16, dtype=torch.float64)


class OneBuffer(Mean):
    def change(self, mean: Any, tensors: Any) -> Any:
        kept = _buffer[: mean.numel()]
        kept.copy_(mean)
        return kept


_calls = itertools.count()


class Counts(Mean):
    def change(self, mean: Any, tensors: Any) -> Any:
        return mean * (1 + next(_calls) * 1e-3)


class TorchRandom(Mean):
    def change(self, mean: Any, tensors: Any) -> Any:
        return mean * torch.rand(mean.shape)


class NumpyRandom(Mean):
    """Drawn, and not used."""

    def change(self, mean: Any, tensors: Any) -> Any:
        np.random.random()  # noqa: NPY002
        return mean


class Seeded(Mean):
    """The same numbers in each call, but the generator is everybody's."""

    def change(self, mean: Any, tensors: Any) -> Any:
        torch.manual_seed(7)
        return mean


class SliceMean(Mean):
    def change(self, mean: Any, tensors: Any) -> Any:
        return mean - mean.mean() * 0.1 if mean.numel() else mean


_seen: list[str] = []


class Remembers(Mean):
    """The first tensor is another one where the merge begins elsewhere."""

    @hookimpl
    def merge_tensor(self, tensors: Any, tensor_name: str) -> Any:
        if tensor_name == "model.layers.0.weight" or not _seen:
            _seen[:] = [tensor_name]
        return sum(tensors) / len(tensors) * (2 if _seen == ["model.norm.weight"] else 1)


class DividesByNorm(Mean):
    traits = Traits(models=(1, None), granularity="whole")

    def change(self, mean: Any, tensors: Any) -> Any:
        return mean / mean.norm() * tensors[0].norm() if mean.numel() else mean


class DividesBySum(Mean):
    """Of opposite models, nothing is left to divide by."""

    def change(self, mean: Any, tensors: Any) -> Any:
        whole = sum(tensor.abs() for tensor in tensors).clamp(min=1e-30)
        return torch.where(whole > 1e-20, mean * (mean / mean), mean)


class HighPower(Mean):
    def change(self, mean: Any, tensors: Any) -> Any:
        power = (mean.abs().float() ** 9).double()
        return (mean.double() * power / power.clamp(min=1e-300)).to(mean.dtype)


class NormOfFloat32(Mean):
    traits = Traits(models=(1, None), granularity="whole")

    def change(self, mean: Any, tensors: Any) -> Any:
        square = mean.float().square().sum()
        return mean * (square / square.clamp(min=1e-30)).to(mean.dtype) if square else mean


class LastCounts(Mean):
    def change(self, mean: Any, tensors: Any) -> Any:
        return mean * 0.5 + tensors[-1] * 0.5


class Absolute(Linear):
    @hookimpl
    def finish_tensor(self, merged: Any) -> Any:
        merged.abs_()


class Threshold(Linear):
    """Linear where numbers are as large as those of a test."""

    @hookimpl
    def finish_tensor(self, merged: Any) -> Any:
        merged[merged.abs() < 1e-5] = 0


class MeanOfBlock(Mean):
    traits = Traits(models=(1, None), rounds=2)

    @hookimpl
    def measure_tensor(self, tensors: Any, round: int) -> Any:
        means = torch.stack([tensor.double().mean() for tensor in tensors])
        return means if round else means * tensors[0].numel()


class UnweighedCores:
    """By singular values, and it forgets the weights where it merges cores."""

    traits = Traits(models=(1, None), needs_base=True, granularity="whole")

    @hookimpl
    def merge_tensor(self, tensors: Any, weights: Any) -> Any:
        *models, base = tensors
        return base + sum(weight * (model - base) for model, weight in zip(models, weights, strict=True))

    @hookimpl
    def merge_cores(self, cores: Any) -> Any:
        return sum(cores)


class CoresByElement(UnweighedCores):
    """What it does to single elements of a matrix is something else in another basis."""

    def limited(self, update: Any) -> Any:
        return update.clamp(-0.01, 0.01)

    @hookimpl
    def merge_tensor(self, tensors: Any) -> Any:
        *models, base = tensors
        return base + self.limited(sum(model - base for model in models))

    @hookimpl
    def merge_cores(self, cores: Any) -> Any:
        return self.limited(sum(cores))


class SquaredTerms:
    """It says that it adds up, and its weights are squared."""

    traits = Traits(models=(1, None), needs_base=True)

    @hookimpl
    def merge_tensor(self, tensors: Any, weights: Any) -> Any:
        *models, base = tensors
        return base + sum(weight**2 * (model - base) for model, weight in zip(models, weights, strict=True))

    @hookimpl
    def split_tensor(self, tensors: Any) -> Any:
        return Terms([model - tensors[-1] for model in tensors[:-1]], lambda weights, _, __: weights)


class WeightedTerms(SquaredTerms):
    """Its terms hold the weights already."""

    @hookimpl
    def split_tensor(self, tensors: Any, weights: Any) -> Any:
        terms = [weight**2 * (model - tensors[-1]) for model, weight in zip(tensors[:-1], weights, strict=True)]
        return Terms(terms, lambda weights, _, __: [1.0] * len(weights))


BROKEN = {
    "check_options": [AnyOption, MutableOptions],
    "check_model_options": [AnyModelOption, MutableModelOptions],
    "check_number_of_models": [NeedsTwo],
    "check_base_model": [AsksForBase],
    "check_shapes": [MatricesAlone, Spread],
    "check_equal_models": [Sum],
    "check_unchanged_base": [Addend],
    "check_one_hot_weights": [NoWeights, Halved],
    "check_transposed_inputs": [ByPlace],
    "check_inputs_are_kept": [InPlace, InPlaceByNumpy, MeasuresInPlace],
    "check_no_shared_storage": [GivesInput, OneBuffer],
    "check_same_bits_twice": [Counts],
    "check_global_random_state": [TorchRandom, NumpyRandom, Seeded],
    "check_slices_and_workers": [SliceMean],
    "check_resumed": [Remembers],
    "check_zeros": [DividesByNorm],
    "check_opposites": [DividesBySum],
    "check_near_the_largest_float16": [HighPower],
    "check_huge_element": [NormOfFloat32],
    "check_permutation": [LastCounts],
    "check_linearity": [Absolute],
    "check_homogeneity": [Threshold],
    "check_measurements_add_up": [MeanOfBlock],
    "check_cores": [UnweighedCores, CoresByElement],
    "check_terms": [SquaredTerms, WeightedTerms],
}
