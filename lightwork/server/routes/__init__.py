"""The routes of the HTTP API, by subject."""

from __future__ import annotations

from lightwork.server.routes import actions, logs, probes, queries, stacks, user
from lightwork.server.routes.probes import PROBES

__all__ = ["PROBES", "ROUTES"]

ROUTES = [*queries.ROUTES, *actions.ROUTES, *logs.ROUTES, *user.ROUTES, *stacks.ROUTES, *probes.ROUTES]
"""All routes below the API's prefix."""
