"""What marks a function as a hook, and which version of the hooks this is."""

import pluggy

HOOKS_VERSION = 1
"""The version of the hooks. A plugin that wants another one (`hooks_version = 2` in its module) is refused."""
PROJECT = "modelmerger"

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)
"""Marks a function of a plugin as its answer to the hook of the same name."""
