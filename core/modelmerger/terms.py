"""The terms of a merge: what its tensors are sums of, for whoever looks for weights."""

from collections.abc import Iterator

from modelmerger.config.merge_config import ConfigLike, MergeConfig
from modelmerger.engine.merged_checkpoint import MergedCheckpoint
from modelmerger.planning.prepared import prepare
from modelmerger.values.strategies.terms import Terms


def split_merge(config: ConfigLike) -> Iterator[tuple[str, Terms | None]]:
    """The tensors that a strategy merges otherwise than by coefficients, by name, each with its `Terms`.

    These are None where the strategy does not split the tensor (hook `split_tensor`). A tensor is read and split when
    asked for; the models are open until the last one. config: as in `merge`. Raises `MergeError`.

    ```python
    from modelmerger import split_merge

    ranks = {name: terms and len(terms.terms) for name, terms in split_merge("merge.yaml")}
    ```
    """
    from modelmerger.engine.devices import slice_device
    from modelmerger.engine.merge import Merge
    from modelmerger.engine.splitting import split_tensor

    settings, hooks = MergeConfig.of(config).resolved()
    with prepare(settings, hooks, merged=MergedCheckpoint) as ready:
        device = slice_device(ready.settings.options.device_map)
        merge = Merge(ready.plan, ready.sources, ready.hooks, ready.settings, device)
        for index, tensor in enumerate(ready.plan.tensors):
            if tensor.action == "merge":
                yield tensor.name, split_tensor(merge, index)
