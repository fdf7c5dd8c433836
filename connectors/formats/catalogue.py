"""The formats that are here, found by looking in this folder: a new one is a new module and nothing else."""

import functools
import importlib
import pkgutil
from pathlib import Path
from typing import cast

from connectors.formats.records import Format


@functools.cache
def formats() -> dict[str, Format]:
    """Every format by its NAME: the modules of this folder that have a NAME."""
    package = __name__.rpartition(".")[0]
    modules = [
        importlib.import_module(f"{package}.{found.name}")
        for found in pkgutil.iter_modules([str(Path(__file__).parent)])
    ]
    return {module.NAME: cast(Format, module) for module in modules if hasattr(module, "NAME")}
