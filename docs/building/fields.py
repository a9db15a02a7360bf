"""Fields of attrs classes on the pages of the API: with the default that they have, and not with what makes it."""

import ast
from typing import Any

import griffe


class Fields(griffe.Extension):
    """Replaces `field(default=3, repr=False)` by `3`, and `field(repr=False)` by nothing."""

    def on_attribute_instance(self, *, node: Any, attr: griffe.Attribute, **_: Any) -> None:
        """Called for each attribute that is found in the sources."""
        call = getattr(node, "value", None)
        if not isinstance(call, ast.Call) or ast.unparse(call.func) not in ("field", "attrs.field", "varying"):
            return
        given = {word.arg: word.value for word in call.keywords}
        if default := given.get("default"):
            attr.value = ast.unparse(default)
        elif factory := given.get("factory"):
            name = ast.unparse(factory)
            attr.value = {"dict": "{}", "list": "[]", "tuple": "()"}.get(name, f"{name}()")
        else:
            attr.value = None
