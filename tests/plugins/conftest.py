from inputs.refusing import _known_plugins, installed, refused
from inputs.tiny_models import tied, untied

__all__ = ["_known_plugins", "installed", "refused", "tied", "untied"]
