"""Merge adapters with PEFT, as its documentation does it.

python benchmarks/by_peft.py {cat,svd,fold} OUTPUT BASE WEIGHTS ADAPTER…
"""

import sys

from peft import PeftModel
from transformers import AutoModelForCausalLM


def main(method: str, output: str, base: str, weights: str, *adapters: str) -> None:
    model = AutoModelForCausalLM.from_pretrained(base, dtype="auto")
    names = [f"adapter_{number}" for number in range(len(adapters))]
    model = PeftModel.from_pretrained(model, adapters[0], adapter_name=names[0])
    if method == "fold":
        model.merge_and_unload().save_pretrained(output)
        return
    for name, adapter in zip(names[1:], adapters[1:], strict=True):
        model.load_adapter(adapter, adapter_name=name)
    model.add_weighted_adapter(
        names, list(map(float, weights.split(","))), "merged", combination_type=method, svd_full_matrices=False
    )
    model.save_pretrained(output, selected_adapters=["merged"])


if __name__ == "__main__":
    main(*sys.argv[1:])
