"""Drawings spoilt at random: each is records in balance, or refused by name, in bounded time and memory.

    python -m tests.formats.fuzz_dxf --minutes 10 --keep /tmp/found

Spoils octets and tags of the samples under YONGTONG_DATA and of drawings made here. Prints what came of it; what broke
the reader is written to the folder, made as small as it goes, with the seed and number by which `--seed` and `--only`
make it again. What was found is a vector in `test_dxf_fuzz.py`.
"""

import argparse
import random
import resource
import signal
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Final

import msgspec
import polars as pl

from connectors.formats import dxf, dxf_tags
from connectors.formats.records import Options
from exchange.placing import load_city, place
from exchange.settings import load_settings
from mappings.apply import map_records, take
from mappings.findings import set_aside
from mappings.load import load_feeds
from mappings.schema import KEY
from security.errors import Refusal
from security.message import in_memory
from tests.conftest import SHARED
from tests.formats.test_dxf import POINT, drawing

ROOT: Final = Path(__file__).parents[2]
FEED: Final = load_feeds([ROOT / "mappings" / "feeds"])["planning-map-500"]
SETTINGS: Final = load_settings(ROOT / "settings.toml")
CITY: Final = load_city(SETTINGS.at(SETTINGS.city.districts), SETTINGS.at(SETTINGS.city.grid), SETTINGS.city.extent)
OPTIONS: Final[Options] = {"attributes": ["编号", "TAG1"], "chord_mm": 10}
MOST_S: Final = 30.0  # of processor, for one drawing
MEMORY_BYTES: Final = 4 << 30
LARGEST: Final = 250_000  # octets of a sample that is spoilt
CODES: Final = tuple(
    b"0 1 2 3 5 8 9 10 20 30 38 42 50 66 67 70 71 72 73 91 92 93 97 210 230 999 1000 1001 -1 32768 x".split()
)
VALUES: Final = (
    *(b"", b" ", b"0", b"-1", b"1", b"nan", b"-inf", b"1e300", b"-1e308", b"1e-320", b"0x10", b"99999999999999999999"),
    *(
        b"SECTION",
        b"ENDSEC",
        b"EOF",
        b"ENTITIES",
        b"INSERT",
        b"POLYLINE",
        b"LWPOLYLINE",
        b"VERTEX",
        b"SEQEND",
        b"ATTRIB",
    ),
    *(b"HATCH", b"MTEXT", b"SOUTH", b"$ACADVER", b"AC1021", b"$DWGCODEPAGE", b"ANSI_936", b"ANSI_1252", b"32767"),
    *(b"\\U+D800", b"\\U+0000", b"\\M+5FFFF", b"\\U+4E2D", b"\xff\xfe", b"\xb9\xdc\xcf\xdf", b"\xe7\xae\xa1", b"\0"),
    *(b"x" * 32_768, b"(" * 1_000, b"16", b"64", b"128", b"2147483648"),
)
MADE: Final = (
    POINT * 3,
    "0\nINSERT\n5\n1\n8\n0\n2\ngc154\n66\n1\n10\n1\n20\n2\n50\n30\n70\n3\n71\n2\n44\n1\n45\n2\n1001\nSOUTH\n1000\n154000\n"
    "0\nATTRIB\n8\n0\n1\nLD1\n2\n编号\n0\nSEQEND\n8\n0\n",
    "0\nPOLYLINE\n8\n0\n66\n1\n70\n1\n" + "".join(f"0\nVERTEX\n8\n0\n10\n{n}\n20\n{n * n}\n42\n0.5\n" for n in range(5))
    + "0\nSEQEND\n8\n0\n",
    "0\nLWPOLYLINE\n8\n0\n90\n3\n70\n1\n10\n0\n20\n0\n42\n1\n10\n5\n20\n0\n10\n5\n20\n5\n210\n0\n220\n0\n230\n-1\n",
    "0\nHATCH\n8\n0\n10\n0\n20\n0\n30\n0\n210\n0\n220\n0\n230\n1\n2\nSOLID\n70\n1\n91\n2\n92\n2\n72\n1\n73\n1\n93\n3\n10\n0\n20\n0\n42\n1\n"
    "10\n9\n20\n0\n42\n0\n10\n9\n20\n9\n42\n0\n92\n1\n93\n2\n72\n1\n10\n0\n20\n0\n11\n4\n21\n4\n72\n2\n10\n0\n20\n0\n40\n5\n50\n0\n51\n90\n"
    "73\n1\n75\n0\n",
    "0\nMTEXT\n8\n0\n10\n1\n20\n2\n3\n给水\n3\n\\U+4E2D\n1\n井\n0\nTEXT\n8\n0\n1\nJS00001\n10\n1\n20\n2\n210\n0.6\n220\n0\n230\n0.8\n",
)  # fmt: skip


class Told(msgspec.Struct):
    """What came of a run: how many records, or the code of a refusal."""

    records: int = 0
    code: str = ""


def read(octets: bytes) -> Told:
    """What becomes of a drawing. AssertionError where records are not in balance; MemoryError, TimeoutError."""
    began_s = time.process_time()
    try:
        frame = pl.concat(batch.frame for batch in dxf.decode([in_memory(octets)], OPTIONS))
    except Refusal as refused:
        return Told(code=refused.code)
    finally:
        assert time.process_time() - began_s < MOST_S, "too slow"
    assert in_small_blocks(octets).equals(frame), "records depend on where a block ends"
    assert frame["#record"].to_list() == list(range(frame.height)), "records are not numbered through"
    assert frame["key"].drop_nulls().n_unique() == frame.height, "keys are not keys"
    check_balance(frame)
    return Told(frame.height)


def in_small_blocks(octets: bytes) -> pl.DataFrame:
    """The records as they are read in a few blocks, each of which ends within something."""
    usual = dxf_tags.BLOCK_BYTES
    dxf_tags.BLOCK_BYTES = 300 + len(octets) // 7  # type: ignore[misc]  # as no setting can
    try:
        return pl.concat(batch.frame for batch in dxf.decode([in_memory(octets)], OPTIONS))
    finally:
        dxf_tags.BLOCK_BYTES = usual  # type: ignore[misc]


def check_balance(frame: pl.DataFrame) -> None:
    """Return if each record is a candidate, or rejected or left out by name, and one of them only."""
    records = take(frame, FEED)
    mapped = map_records(records, FEED)
    placed = place(
        mapped.candidates, crs=FEED.crs, accuracy_m=FEED.accuracy_m, city=CITY,
        limit_m=SETTINGS.tolerances.transformation_m,
    )  # fmt: skip
    said = records.select("delivery", record="#record", source_key=pl.lit(""))
    aside = set_aside(said, mapped.findings)
    taken = placed.placed.select(*KEY)
    assert taken.height + aside.height == records.height, "records are not in balance"
    assert taken.join(aside, on=list(KEY), how="semi").is_empty(), "a record is both"
    known = placed.placed.select(pl.col("longitude_deg", "latitude_deg").is_finite().all())
    assert all(value in (True, None) for value in known.row(0)), "a place that is none"


# Spoiling


def sources(folder: Path) -> list[bytes]:
    """Drawings to be spoilt: the samples that are not too large, and those made here, in two encodings."""
    found = [path.read_bytes() for path in sorted(folder.glob("*.dxf"))] if folder.is_dir() else []
    made = [drawing(entities).encode("gbk") for entities in (*MADE, "".join(MADE))]
    made += [drawing(entities, "AC1021").encode() for entities in MADE]
    return [octets for octets in found if len(octets) <= LARGEST] + made


def spoil(octets: bytes, others: list[bytes], lot: random.Random) -> bytes:
    """The drawing with one to four things changed."""
    for _ in range(lot.randint(1, 4)):
        octets = lot.choice(WAYS)(octets, others, lot)
    return octets


def _flip(octets: bytes, _: list[bytes], lot: random.Random) -> bytes:
    changed = bytearray(octets or b"0")
    changed[lot.randrange(len(changed))] ^= 1 << lot.randrange(8)
    return bytes(changed)


def _insert(octets: bytes, _: list[bytes], lot: random.Random) -> bytes:
    at = lot.randint(0, len(octets))
    return octets[:at] + lot.randbytes(lot.randint(1, 8)) + octets[at:]


def _cut(octets: bytes, _: list[bytes], lot: random.Random) -> bytes:
    at = lot.randint(0, len(octets))
    return octets[:at] + octets[at + lot.choice((1, 2, 10, 1_000, len(octets))) :]


def _splice(octets: bytes, others: list[bytes], lot: random.Random) -> bytes:
    other = lot.choice(others)
    at, begin = lot.randint(0, len(octets)), lot.randint(0, len(other))
    return octets[:at] + other[begin : begin + lot.choice((50, 500, 5_000))] + octets[at:]


def _in_lines(change: Callable[[list[bytes], int, random.Random], None]) -> Callable[..., bytes]:
    """A way that changes lines, of which every second is a value."""

    def way(octets: bytes, _: list[bytes], lot: random.Random) -> bytes:
        lines = octets.split(b"\n")
        change(lines, lot.randrange((len(lines) + 1) // 2) * 2, lot)
        return b"\n".join(lines)

    return way


def _code(lines: list[bytes], at: int, lot: random.Random) -> None:
    lines[at] = lot.choice(CODES)


def _value(lines: list[bytes], at: int, lot: random.Random) -> None:
    lines[at + 1 : at + 2] = [lot.choice(VALUES)]


def _remove(lines: list[bytes], at: int, lot: random.Random) -> None:
    del lines[at : at + 2 * lot.choice((1, 1, 3, 20))]


def _repeat(lines: list[bytes], at: int, lot: random.Random) -> None:
    lines[at:at] = lines[at : at + 2 * lot.choice((1, 5, 40))] * lot.choice((1, 2, 30))


def _exchange(lines: list[bytes], at: int, lot: random.Random) -> None:
    other = lot.randrange((len(lines) + 1) // 2) * 2
    lines[at : at + 2], lines[other : other + 2] = lines[other : other + 2], lines[at : at + 2]


def _line(lines: list[bytes], at: int, lot: random.Random) -> None:
    lines[at:at] = [lot.choice(VALUES)]


WAYS: Final = (
    *(_flip, _insert, _cut, _splice),
    *map(_in_lines, 3 * (_code, _value, _value, _remove, _repeat, _exchange)),
    _in_lines(_line),
)


# Running


def made(seed: int, number: int, from_: list[bytes]) -> bytes:
    """The drawing of that number: the same for the same seed and samples."""
    lot = random.Random(f"{seed}:{number}")
    return spoil(lot.choice(from_), from_, lot)


def problem_of(octets: bytes) -> tuple[Told, str]:
    """What came of it, and the problem if that is none of what may come: its type and the last places it passed."""
    try:
        return read(octets), ""
    except BaseException as problem:
        if isinstance(problem, KeyboardInterrupt):
            raise
        last = traceback.extract_tb(problem.__traceback__)[-1]
        return Told(), f"{type(problem).__name__} {Path(last.filename).name}:{last.lineno} {str(problem)[:80]}"


def smaller(octets: bytes, problem: str) -> bytes:
    """As little of it as still has the problem, by leaving out halves, quarters, ... of its lines."""
    lines = octets.split(b"\n")
    step, until_s = max(len(lines) // 2, 1), time.monotonic() + 60
    while step and time.monotonic() < until_s:
        for at in range(0, len(lines), step):
            fewer = lines[:at] + lines[at + step :]
            if problem_of(b"\n".join(fewer))[1] == problem:
                lines = fewer
                break
        else:
            step //= 2
    return b"\n".join(lines)


def _numbers(options: argparse.Namespace) -> Iterator[int]:
    until_s = time.monotonic() + options.minutes * 60
    number = 0
    while time.monotonic() < until_s:
        yield number
        number += 1


def _too_long(_: int, frame: FrameType | None) -> None:
    raise TimeoutError("hangs")


def main() -> None:
    """Spoil and read for so long."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", type=int, help="one drawing, by its number")
    parser.add_argument("--keep", type=Path, help="folder for what broke the reader")
    options = parser.parse_args()
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    signal.signal(signal.SIGALRM, _too_long)
    from_ = sources(SHARED / "dxf_samples")
    told: Counter[str] = Counter()
    records, found, longest_s = 0, set[str](), 0.0
    for number in [options.only] if options.only is not None else _numbers(options):
        octets = made(options.seed, number, from_)
        began_s = time.process_time()
        signal.alarm(int(4 * MOST_S))
        result, problem = problem_of(octets)
        signal.alarm(0)
        longest_s = max(longest_s, time.process_time() - began_s)
        records += result.records
        told[problem or result.code or "records"] += 1
        if problem and problem not in found:
            found.add(problem)
            print(f"seed {options.seed} number {number}: {problem}", flush=True)
            if options.keep:
                options.keep.mkdir(parents=True, exist_ok=True)
                (options.keep / f"{options.seed}-{number}.dxf").write_bytes(smaller(octets, problem))
    print(f"seed {options.seed}, {told.total()} drawings of {len(from_)}, {records} records, longest {longest_s:.1f} s")
    for what, count in told.most_common():
        print(f"{count:>8} {what}")
    raise SystemExit(bool(found))


if __name__ == "__main__":
    main()
