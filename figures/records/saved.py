"""What a saved file is: each kind that can be drawn, found by what the file says of itself, not by its name."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

from figures.records.record import FigureDataError, read_object
from figures.records.words import file_name

RUN, ABLATION, CALIBRATION_SIZE = "run", "ablation", "calibration-size"
STUDY, LATENCY, BUDGET, DIVERGENCE, QUALITY = "study", "latency", "budget", "divergence", "quality"
#: Files that a directory is a run or a study by: broken ones are errors, wherever they lie.
MAIN_NAMES = ("results.json", "study.json")
_SKIPPED = ("config.json",)
_KINDS = {"draftgraph-results": RUN} | {
    f"draftgraph-{kind}": kind for kind in (ABLATION, CALIBRATION_SIZE, STUDY, LATENCY, BUDGET, DIVERGENCE, QUALITY)
}


class FigureWarning(UserWarning):
    """A figure was left out because the saved results hold no data for it."""


def kind_of(content: dict[str, Any]) -> str | None:
    """The kind of a saved JSON object; None where there is no figure of it (graph files, comparisons, ...)."""
    name = content.get("format")
    return _KINDS.get(name) if isinstance(name, str) else None


def saved_files(path: Path) -> list[tuple[Path, str]]:
    """What can be drawn: ``path`` itself, or the files in the directory ``path``, with their kinds.

    In a directory, results.json and study.json come first, then the other JSON files by name. Files of no kind are
    passed over; one that cannot be read is passed over with a :class:`FigureWarning`.

    Raises:
        FigureDataError: a file that is given, results.json or study.json cannot be read or is of no kind; or a
            directory without a file of any kind.
    """
    if path.is_file():
        kind = kind_of(read_object(path))
        if kind is None:
            raise FigureDataError(f"{path}: there is no figure of this kind of file; {_known()}")
        return [(path, kind)]
    names = [name for name in MAIN_NAMES if (path / name).exists()]
    names += sorted({file.name for file in path.glob("*.json")} - {*MAIN_NAMES, *_SKIPPED})
    found = []
    for name in names:
        file = path / name
        try:
            kind = kind_of(read_object(file))
        except FigureDataError as error:
            if name in MAIN_NAMES:
                raise
            warnings.warn(f"{error}: not drawn", FigureWarning, stacklevel=3)
            continue
        if kind is None and name in MAIN_NAMES:
            kind = RUN if name == "results.json" else STUDY  # whose reader says what is wrong with it
        if kind is not None:
            found.append((file, kind))
    if not found:
        raise FigureDataError(f"{path}: nothing to draw in it; {_known()}")
    return found


def figures_folder(path: str | Path) -> Path:
    """Where figures of ``path`` go: the folder ``figures`` of a run or study, ``NAME-figures`` beside another file.

    A file may lie anywhere, also in a clone of this repository, whose ``figures`` is source code; no folder that
    belongs to a package is ever written into.
    """
    path = Path(path)
    if path.name in MAIN_NAMES and path.is_file():
        path = path.parent
    if path.is_dir():
        folder = path / "figures"
        return path / "saved-figures" if (folder / "__init__.py").exists() else folder
    return path.with_name(path.name.removesuffix(".json").removesuffix(".budget") + "-figures")


def stem(figure: str, file: Path) -> str:
    """The name of a figure of ``file``: its own where the file is a run's or bears the same name, else with both."""
    name = file.name.removesuffix(".json").removesuffix(".budget")
    plain = file.name in MAIN_NAMES or name.replace("-", "_") in (figure, "budget")
    return figure if plain else file_name(figure, name)


def _known() -> str:
    return (
        "expected results.json of `draftgraph calibrate` or `ablate`, study.json of `study`, or a file that "
        "`quality`, `calibration-size`, `latency`, `budget` or `verify` wrote"
    )
