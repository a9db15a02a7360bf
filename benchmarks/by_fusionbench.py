"""Merge with FusionBench 0.2.33, models loaded as transformers loads them by default.

python benchmarks/by_fusionbench.py {weighted,task_arithmetic} OUTPUT NUMBERS BASE MODEL…

NUMBERS: the weights, or the scaling factor. It runs in an environment that has fusion-bench.
"""

import sys

import torch
from fusion_bench.method.task_arithmetic.task_arithmetic import task_arithmetic_merge
from fusion_bench.method.weighted_average.weighted_average import WeightedAverageAlgorithm
from transformers import AutoModelForCausalLM


def main(method: str, output: str, numbers: str, base: str, *paths: str) -> None:
    models = [AutoModelForCausalLM.from_pretrained(path, dtype=torch.bfloat16) for path in paths]
    given = list(map(float, numbers.split(",")))
    if method == "weighted":
        pool = dict(zip(map(str, range(len(models))), models, strict=True))
        merged = WeightedAverageAlgorithm(normalize=True, weights=given, verbose=False).run(pool)
    else:
        start = AutoModelForCausalLM.from_pretrained(base, dtype=torch.bfloat16)
        merged = task_arithmetic_merge(start, models, given[0])
    merged.save_pretrained(output)


if __name__ == "__main__":
    main(*sys.argv[1:])
