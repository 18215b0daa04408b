"""Containers of components: `List` and `Dict`, which a flow makes of its lists and dicts of components."""

from lightwork.components.structures import Dict, List

__all__ = ["Dict", "List"]
