"""The products that were made last, so that a tensor that is read in slices is multiplied once."""

import threading
from collections import OrderedDict
from collections.abc import Callable

from modelmerger_plugins.peft_adapters.merging.factors import Product

KEPT = 4
"""Products that are kept at a time: those that workers are in, and those before."""


class Products:
    """At most `KEPT` products. Safe from several threads; each product is made by one at a time."""

    def __init__(self) -> None:
        self._kept: OrderedDict[str, Product] = OrderedDict()
        self._making: dict[str, threading.Lock] = {}
        self._lock = threading.Lock()

    def get(self, name: str, make: Callable[[], Product]) -> Product:
        """The product of this name: the one that is kept, or what `make` gives, which is then kept."""
        with self._lock:
            making = self._making.setdefault(name, threading.Lock())
        with making:
            if (found := self._kept.get(name)) is None:
                found = make()
            with self._lock:
                self._kept[name] = found
                self._kept.move_to_end(name)
                if len(self._kept) > KEPT:
                    self._kept.popitem(last=False)
        return found
