"""HTTP routes and commands of an app: the items of a flow's ``configure_api`` and ``configure_commands``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from lightwork.errors import UsageError

__all__ = ["Command", "Delete", "Get", "HttpMethod", "Post", "Put"]


class HttpMethod:
    """A route; use `Get`, `Post`, `Put` or `Delete`.

    Args:
        route: Its path, which begins with a slash: ``/api/predict``. A part in braces, ``{name}``, is a parameter.
        method: Called for each request, ``async def`` in the app's loop, plain in a thread. Its parameters come from
            the path, then from the query (`Get`, `Delete`) or from the keys of a JSON object in the body. They are
            converted to their annotations. A single parameter that is a struct or dataclass receives the whole body.
            The return value is the response, in JSON. If `method` raises, its changes of the state are rolled back.
        method_name: Name of the route in the documentation; by default the function's own name.
        timeout: Seconds that a request may take.

    Raises:
        UsageError: `route` is not a path, or `method` is not callable.
    """

    verb: ClassVar[str] = ""

    def __init__(
        self, route: str, method: Callable[..., Any], method_name: str | None = None, timeout: float = 30
    ) -> None:
        if not str(route).startswith("/"):
            raise UsageError(f"{type(self).__name__}({route!r:.80}): a route must begin with a slash, as '/api' does")
        if not callable(method):
            raise UsageError(f"{type(self).__name__}({route!r}): method must be a function, got {method!r:.80}")
        self.route = route
        self.method = method
        self.method_name: str = method_name or str(getattr(method, "__name__", type(method).__name__))
        self.timeout = timeout

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.route!r}, {self.method_name})"


class Get(HttpMethod):
    """Answers GET."""

    verb = "GET"


class Post(HttpMethod):
    """Answers POST."""

    verb = "POST"


class Put(HttpMethod):
    """Answers PUT."""

    verb = "PUT"


class Delete(HttpMethod):
    """Answers DELETE."""

    verb = "DELETE"


class Command:
    """A command of the app: ``lightwork app NAME --key value`` calls it.

    A dict, ``{"name": method}``, does the same. If `method` raises, its changes of the state are rolled back.

    Args:
        name: The word that people type.
        method: Called with the arguments by name, ``async def`` in the app's loop, plain in a thread.
        help: Help text; by default the first line of the function's docstring.

    Raises:
        UsageError: `name` is not one word, or `method` is not callable.
    """

    def __init__(self, name: str, method: Callable[..., Any], help: str | None = None) -> None:
        if not name or name.startswith("-") or any(c.isspace() or c == "/" for c in name):
            raise UsageError(f"Command({name!r:.80}): a name must be one word without slashes, not begun with a dash")
        if not callable(method):
            raise UsageError(f"Command({name!r}): method must be a function, got {method!r:.80}")
        self.name = name
        self.method = method
        self.help: str = help if help is not None else (method.__doc__ or "").strip().partition("\n")[0]

    def __repr__(self) -> str:
        return f"Command({self.name!r})"
