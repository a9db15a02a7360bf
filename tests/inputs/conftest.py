from inputs.refusing import _known_plugins, installed, refused

__all__ = ["_known_plugins", "installed", "refused"]
