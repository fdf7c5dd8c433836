"""What became of a sheet, as a report or a preview tells it, in tables for people."""

from typing import Any, Final

from exchange.cli.output import print_table

OF_KIND: Final = {
    "added": "新增 added",
    "moved": "移位 moved",
    "changed": "变更 changed",
    "gone": "消失 gone",
    "unchanged": "不变 as it was",
    "on_seam": "接边 on a seam",
}
BASIS: Final = {"stated": "图上注明 written in it", "computed": "由图形推算 computed"}
NAMED: Final = 3  # sheets in a title


def print_sheet(told: dict[str, Any], against: str) -> None:
    """Which sheet, how many things of each kind, the first of each by name and how far it moved.

    told: as `exchange.sheet_difference.told` gives it; against: what it was compared with
    """
    numbers = told["numbers"]
    named = ", ".join(numbers[:NAMED]) + (f" … {len(numbers)}" if len(numbers) > NAMED else "")
    counts = [(word, told[kind]) for kind, word in OF_KIND.items()]
    print_table(f"图幅 Sheet {named}: {BASIS[told['basis']]}", [against, "n"], counts)
    first = [
        (OF_KIND[kind], one["source_key"], one["class_code"], one.get("moved_m", ""))
        for kind, some in told["first"].items()
        for one in some
    ]
    if first:
        print_table("图幅变化 Difference, the first of each", ["", "key", "class", "m"], first)
