"""The public path of a class: the module that users import it from, and not the one that defines it."""

from __future__ import annotations

import inspect
import typing

__all__ = ["export"]


def export(module: str, *classes: type) -> None:
    """Give classes the public path `module`: tracebacks, ``repr``, ``help`` and pickles then show that.

    Python and msgspec look the names in a class's annotations up in the module that the class says it is from. So the
    annotations are resolved first, in the module that defines the class. Call it below everything that they name.

    Args:
        module: A module from which each of the classes can be imported by its name.
        classes: They may be structs, dataclasses, enums and typed dictionaries. The bases are left alone.
    """
    for cls in classes:
        written = inspect.get_annotations(cls)
        if written:
            # A class without bases: `get_type_hints` would resolve those of the bases again.
            bare = type(cls.__name__, (), {"__module__": cls.__module__, "__annotations__": written})
            cls.__annotations__ = typing.get_type_hints(bare, include_extras=True)
        cls.__module__ = module
