"""`export`: the components that a bureau's grant covers, as a CSV file. Without a grant there is no export.

UTF-8 with a byte order mark and CRLF, as spreadsheets open it: without the mark Excel takes Chinese for GBK.
Identifiers have 16 digits, of which a spreadsheet keeps 15 unless the column is imported as text.
"""

import argparse
import csv
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Final

from connectors.partner.answers import Component
from exchange.cli.output import print_json, print_table, say
from exchange.cli.parsing import Commands, add_command
from exchange.cli.partner import add_partner_options, partner_of
from security.errors import Misconfigured

# By the shared schema's names, whatever the grant shows: what it masks is as empty as what nobody said.
COLUMNS: Final = (
    "identifier", "key", "class_code", "name", "state", "longitude_deg", "latitude_deg", "accuracy_m", "division_code",
    "grid_code", "change_number",
)  # fmt: skip
FORMULA: Final = ("=", "+", "-", "@", "\t", "\r")


def add_commands(commands: Commands, common: argparse.ArgumentParser) -> None:
    """export."""
    export = add_command(
        commands,
        common,
        "export",
        _export,
        says="the components that the bureau's grant covers, as CSV (UTF-8; import identifiers as text)",
        example="yongtong export covers.csv --class 0102 --as haishu-centre",
    )
    export.add_argument("file", metavar="FILE", type=Path, help="written when all of it has come, over what it held")
    export.add_argument("--class", dest="class_code", metavar="C", help="class code of the master edition")
    export.add_argument("--purpose", default="export", help="stands in the audit (export)")
    export.add_argument("--case", metavar="NUMBER", help="case number; stands in the audit")
    add_partner_options(export, required=True)


def _export(options: argparse.Namespace) -> int:
    pages = partner_of(options).components(options.class_code, purpose=options.purpose, case_number=options.case)
    rows = count = 0
    with _whole(options.file) as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for page in pages:
            writer.writerows(map(_row, page))
            rows, count = rows + len(page), count + 1
            say(f"已导出 {rows} 个部件 {rows} components")
    made = {"file": str(options.file), "components": rows, "pages": count}
    print_json({"export": made}) if options.json else print_table("导出 Export", ["", ""], made.items())
    return 0


@contextmanager
def _whole(path: Path) -> Iterator[IO[str]]:
    """A text file beside `path` that takes its place once the block is through; an export cut short leaves nothing."""
    beside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with beside.open("w", encoding="utf-8-sig", newline="") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    except OSError as problem:
        raise Misconfigured("config.file", f"{path}: {problem.strerror}") from problem
    finally:
        beside.unlink(missing_ok=True)


def _row(component: Component) -> list[Any]:
    return [_harmless(getattr(component, name)) for name in COLUMNS]


def _harmless(cell: Any) -> Any:
    """A text that a spreadsheet would take for a formula gets an apostrophe before it. Numbers are ours."""
    return f"'{cell}" if isinstance(cell, str) and cell.startswith(FORMULA) else cell
