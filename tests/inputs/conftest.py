from inputs.refusing import refused

__all__ = ["refused"]
