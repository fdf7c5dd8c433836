"""`python -m bench [--only NAME]`: measure, print figures beside their peers, keep them in bench/results.json."""

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.table import Table

from bench import (
    audit,
    bulk,
    bundle,
    dxf,
    dxf_components,
    fairness,
    log_reading,
    mqtt,
    ownership,
    receipts,
    rights,
    signed_soap,
    starting,
    suites,
    workers,
    wss,
)
from bench.figures import Figure, Results, keep

WORK: Final = (
    Path(__file__).parents[1] / "build"
)  # on the disk of the tree: a /tmp in memory would make durability free
FIGURES: Final[dict[str, Callable[[Path], Figure]]] = {
    "signed_soap_per_s": signed_soap.measure,
    "signed_soap_act_one_per_s": signed_soap.measure_act_one,
    "signed_soap_p99_ms_of_300": signed_soap.measure_crowd,
    "signed_soap_postgres_per_s": signed_soap.measure_postgres,
    "signed_soap_at_10000_grants_per_s": rights.measure,
    "wss_verify_per_s": wss.measure,
    "wss_verify_5mb_per_s": wss.measure_large,
    "ownership_by_id_per_s": ownership.measure,
    "mqtt_deliveries_per_s": mqtt.measure,
    "bulk_register_records_per_s": bulk.measure,
    "bulk_register_postgres_records_per_s": bulk.measure_postgres,
    "workers_two_on_postgres": workers.measure,
    "redelivery_records_per_s": bulk.measure_again,
    "audit_appends_per_s": audit.measure,
    "audit_appends_at_1e6_per_s": audit.measure_growth,
    "receipts_per_s": receipts.measure,
    "audit_verify_entries_per_s": log_reading.measure_verify,
    "audit_search_ms": log_reading.measure_search,
    "bundle_verify_ms": bundle.measure,
    "dxf_entities_per_s": dxf.measure,
    "dxf_200mb_entities_per_s": dxf.measure_large,
    "dxf_to_components_per_s": dxf_components.measure,
    "serve_start_ms": starting.measure,
    "flood_slows_others_ratio": fairness.measure,
    "suite_sm2_sign_per_s": suites.measure_sign,
    "suite_sm2_verify_per_s": suites.measure_verify,
    "suite_sm2_wss_verify_per_s": suites.measure_envelopes,
}


def _print(results: Results) -> None:
    table = Table(title=f"commit {results.commit[:12]}", title_justify="left")
    for heading in ("figure", "ours", "peer", "ratio", "unit"):
        table.add_column(heading, justify="left" if heading in ("figure", "unit") else "right")
    for each in results.figures:
        table.add_row(each.name, f"{each.ours:,.0f}", f"{each.peer:,.0f}", f"{each.ratio:.2f}", each.unit)
    console = Console(highlight=False)
    console.print(table)
    for each in results.figures:
        console.print(f"{each.name}: {each.note}", style="dim", markup=False)


def main() -> int:
    """Measure all figures, or one."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument(
        "--only", choices=sorted(FIGURES), help="measure this figure; the others keep their last values"
    )
    options = parser.parse_args()
    WORK.mkdir(exist_ok=True)
    for name in [options.only] if options.only else FIGURES:
        began_s = time.monotonic()
        with tempfile.TemporaryDirectory(prefix="bench-", dir=WORK) as folder:
            results = keep(FIGURES[name](Path(folder) / name))  # at once: a later figure that fails takes none away
        print(f"{name}: {time.monotonic() - began_s:.0f} s", file=sys.stderr)
    _print(results)
    return 0


if __name__ == "__main__":
    sys.exit(main())
