"""Whether the program that makes DXF of DWG, where the settings name one, is there and runs as it will be run."""

from collections.abc import Iterator

from connectors.formats import dwg
from exchange.doctor.check import Check, Examined, bad, good
from security.errors import Misconfigured, Refusal


def converter_runs(bus: Examined) -> Iterator[Check]:
    """It says its version, shut off and limited."""
    program = bus.settings.drawings.dwg2dxf
    if not program:
        yield good("place.converter", "未配置 DWG 转换程序，DWG 按名拒收。", "No converter is set; a DWG is refused.")
        return
    try:
        version = dwg.version_of(program)
    except (Misconfigured, Refusal) as problem:
        yield bad(
            "place.converter",
            f"DWG 转换程序不能运行：{problem.detail}。",
            f"The converter for DWG does not run: {problem.detail}.",
            "请核对 [drawings] dwg2dxf 的绝对路径、执行权限和动态库；没有则留空，DWG 将按名拒收。",
            "Check path, permission and libraries of [drawings] dwg2dxf; without one leave it empty: a DWG is refused.",
        )
        return
    yield good("place.converter", f"DWG 转换程序可用：{version}。", f"The converter for DWG runs: {version}.")
