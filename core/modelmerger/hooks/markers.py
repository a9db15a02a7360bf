"""The markers of hooks and of their implementations, and the version of the hooks."""

import pluggy

HOOKS_VERSION = 1
"""The version of the hooks. A plugin that wants another one (`hooks_version = 2` in its module) is refused."""
PROJECT = "modelmerger"
"""The name under which pluggy knows the hooks."""

hookspec = pluggy.HookspecMarker(PROJECT)
"""Marks a function as the specification of a hook."""
hookimpl = pluggy.HookimplMarker(PROJECT)
"""Marks a function of a plugin as its answer to the hook of the same name."""
SPECIFIED = f"{PROJECT}_spec"
"""The attribute that `hookspec` gives a function, with the options of the hook."""
MARK = f"{PROJECT}_impl"
"""The attribute that `hookimpl` gives a function."""
