"""Coordinates long jobs from asyncio. Each job runs in a separate process, and its state streams back while it runs."""

from typing import TYPE_CHECKING, Any

from lightwork._common.public import export as _export
from lightwork._version import __version__
from lightwork.build import BuildConfig
from lightwork.components.call import Call
from lightwork.components.executor import WorkRunExecutor
from lightwork.components.flow import Flow, LightningFlow
from lightwork.components.flow_delta import FlowDelta
from lightwork.components.work import LightningWork, Work
from lightwork.compute import CloudCompute, Mount
from lightwork.errors import AppEnded
from lightwork.status import Reason, Stage, WorkStatus

if TYPE_CHECKING:
    from lightwork.app import App, LightningApp
    from lightwork.components.profiling import ProfileExecutor
    from lightwork.config import AppSettings, Config, load_config

__all__ = [
    "App",
    "AppEnded",
    "AppSettings",
    "BuildConfig",
    "Call",
    "CloudCompute",
    "Config",
    "Flow",
    "FlowDelta",
    "LightningApp",
    "LightningFlow",
    "LightningWork",
    "Mount",
    "ProfileExecutor",
    "Reason",
    "Stage",
    "Work",
    "WorkRunExecutor",
    "WorkStatus",
    "__version__",
    "load_config",
]

_export(
    __name__,
    AppEnded,
    BuildConfig,
    Call,
    CloudCompute,
    Flow,
    FlowDelta,
    Mount,
    Reason,
    Stage,
    Work,
    WorkRunExecutor,
    WorkStatus,
)

# The engine is loaded on first use: a worker imports lightwork too, and does not need the engine.
_LATER = {
    "App": "lightwork.app",
    "AppSettings": "lightwork.config",
    "LightningApp": "lightwork.app",
    "Config": "lightwork.config",
    "load_config": "lightwork.config",
    "ProfileExecutor": "lightwork.components.profiling",
}


if not TYPE_CHECKING:  # otherwise a type checker accepts any misspelt name

    def __getattr__(name: str) -> Any:
        if name not in _LATER:
            raise AttributeError(f"module 'lightwork' has no attribute {name!r}")
        import importlib

        found = getattr(importlib.import_module(_LATER[name]), name)
        globals()[name] = found
        return found


def __dir__() -> list[str]:
    return sorted(__all__)
