"""The version of the installed distribution, written into everything that is written."""

from importlib.metadata import PackageNotFoundError, version


def tool_version() -> str:
    """The distribution's version, or ``0+source`` when it runs from a checkout that is not installed."""
    try:
        return version("draftgraph")
    except PackageNotFoundError:
        return "0+source"
