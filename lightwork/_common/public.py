"""The public path of a class: the module that users import it from."""

from __future__ import annotations

import inspect
import typing

__all__ = ["export"]


def export(module: str, *classes: type) -> None:
    """Set the module of classes to their public path. Tracebacks, ``repr``, ``help`` and pickles then show it.

    Python and msgspec resolve annotations in the module that a class names. So the annotations are resolved first, in
    the module that defines the class. Call `export` after everything that the annotations name is defined.

    Args:
        module: A module from which each class can be imported by its name.
        classes: Structs, dataclasses, enums, typed dictionaries and other classes. Their bases are not changed.
    """
    for cls in classes:
        written = inspect.get_annotations(cls)
        if written:
            # A class without bases: `get_type_hints` would resolve those of the bases again.
            bare = type(cls.__name__, (), {"__module__": cls.__module__, "__annotations__": written})
            cls.__annotations__ = typing.get_type_hints(bare, include_extras=True)
        cls.__module__ = module
