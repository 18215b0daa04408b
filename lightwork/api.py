"""What ``configure_api`` and ``configure_commands`` of a flow give: HTTP routes and commands of the app's own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from lightwork.errors import UsageError

__all__ = ["Command", "Delete", "Get", "HttpMethod", "Post", "Put"]


class HttpMethod:
    """A route; use `Get`, `Post`, `Put` or `Delete`.

    Args:
        route: Its path, which begins with a slash: ``/api/predict``. A part in braces, ``{name}``, is a parameter.
        method: Called for each request, ``async def`` in the app's loop, plain in a thread. Its parameters are filled
            from the path, then from the query (`Get`, `Delete`) or from the keys of a JSON object in the body, and
            converted to their annotations. One parameter that is a struct or dataclass takes the whole body. What it
            returns is the answer, in JSON. If it raises, the changes that it has made to the state are taken back.
        method_name: What documentation calls it; the function's own name by default.
        timeout: Seconds that it may take.

    Raises:
        UsageError: `route` is no path, or `method` cannot be called.
    """

    verb: ClassVar[str] = ""

    def __init__(
        self, route: str, method: Callable[..., Any], method_name: str | None = None, timeout: float = 30
    ) -> None:
        if not str(route).startswith("/"):
            raise UsageError(f"{type(self).__name__}({route!r:.80}): a route begins with a slash, '/api/predict'")
        if not callable(method):
            raise UsageError(f"{type(self).__name__}({route!r}): {method!r:.80} is no function")
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
    """A command of the app's own: ``lightwork app NAME --key value`` calls it.

    A dict, ``{"name": method}``, does the same. If it raises, the changes that it has made to the state are taken back.

    Args:
        name: What people type.
        method: Called with the arguments by name, ``async def`` in the app's loop, plain in a thread.
        help: For people; the first line of the function's docstring by default.

    Raises:
        UsageError: `name` is no word, or `method` cannot be called.
    """

    def __init__(self, name: str, method: Callable[..., Any], help: str | None = None) -> None:
        if not name or name.startswith("-") or any(c.isspace() or c == "/" for c in name):
            raise UsageError(f"Command({name!r:.80}): a name is one word without slashes, and begins with no dash")
        if not callable(method):
            raise UsageError(f"Command({name!r}): {method!r:.80} is no function")
        self.name = name
        self.method = method
        self.help: str = help if help is not None else (method.__doc__ or "").strip().partition("\n")[0]

    def __repr__(self) -> str:
        return f"Command({self.name!r})"
