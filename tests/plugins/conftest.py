from inputs.refusing import refused
from inputs.tiny_models import tied, untied

__all__ = ["refused", "tied", "untied"]
