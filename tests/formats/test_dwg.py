"""A DWG becomes DXF by a program of the machine's, which is believed in nothing: small scripts stand for it here, as
real processes, and LibreDWG itself where YONGTONG_DWG2DXF names it.
"""

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import polars as pl
import pytest

from connectors.formats import dwg, dxf, dxf_tags
from connectors.formats.dxf_tags import dwg_version
from mappings.apply import map_records, take
from mappings.load import load_feeds
from security.errors import Misconfigured, Refusal, sentences
from security.message import file_content, in_memory
from tests.formats.test_dxf import POINT, drawing

DWG = b"AC1015" + bytes(100)
TEXT = "0\nTEXT\n8\n0\n1\n{}\n10\n0\n20\n0\n"
SAMPLES = ("Text_2004", "Text_2007", "Text_2010", "Text_2013", "r14_v", "sample_2000", "sample_2018")
FEEDS = Path(__file__).parents[2] / "samples" / "street_survey" / "feeds"
WORKER = """
import sys, tempfile
from connectors.formats import dxf
from security.message import in_memory
tempfile.tempdir = sys.argv[2]
list(dxf.decode([in_memory(b"AC1015" + bytes(100))], {"dwg2dxf": sys.argv[1]}))
"""
WHOLE = 'cat "${0%/*}/whole.dxf" > drawing.dxf'


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where temporary folders are made in this test; nothing may be left there."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    yield folder
    assert not list(folder.iterdir())


@pytest.fixture
def program(tmp_path: Path) -> Callable[[str], str]:
    """Path of a program that does what the shell's words say, in the folder with `drawing.dwg`."""
    home = tmp_path / "program"
    home.mkdir()
    (home / "whole.dxf").write_bytes(drawing(POINT).encode("gbk"))

    def written(words: str) -> str:
        (home / "dwg2dxf").write_text(f"#!/bin/sh\n{words}\n")
        (home / "dwg2dxf").chmod(0o755)
        return str(home / "dwg2dxf")

    return written


def decode(octets: bytes, path: str) -> pl.DataFrame:
    return pl.concat(batch.frame for batch in dxf.decode([in_memory(octets)], {"dwg2dxf": path}))


def refusal(octets: bytes, path: str) -> tuple[str, str]:
    with pytest.raises(Refusal) as refused:
        decode(octets, path)
    return refused.value.code, refused.value.detail


def of_words(words: str) -> list[str]:
    """Command lines of this machine's processes with those words in them."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:  # it has ended
            continue
        found += [line] if words in line else []
    return found


# What it makes


def test_what_the_program_writes_is_read_as_any_drawing(program: Callable[[str], str]) -> None:
    path = program(f'test "$1 $2 $3" = "-o drawing.dxf drawing.dwg" && grep -q AC1015 drawing.dwg && {WHOLE}')
    frame = decode(DWG, path)
    assert frame.select("entity", "layer", "key").rows() == [("POINT", "管线", "A1")]


def test_a_dxf_goes_past_the_program(program: Callable[[str], str]) -> None:
    assert decode(drawing(POINT).encode("gbk"), program("exit 1")).height == 1
    assert decode(drawing(POINT).encode("gbk"), "/no/such/program").height == 1


def test_of_several_drawings_each_is_what_it_is(program: Callable[[str], str]) -> None:
    contents = [in_memory(DWG), in_memory(drawing(POINT * 2).encode("gbk")), in_memory(DWG)]
    frame = pl.concat(batch.frame for batch in dxf.decode(contents, {"dwg2dxf": program(WHOLE)}))
    assert frame["#content"].to_list() == [0, 1, 1, 2]


def test_without_a_program_a_dwg_is_refused_with_what_to_do() -> None:
    assert refusal(DWG, "") == ("decode.dwg", "AC1015")
    for next_step in (sentences()["decode.dwg"].next_en, sentences()["decode.dwg"].next_zh):
        assert "DXF" in next_step
        assert "LibreDWG" in next_step


@pytest.mark.parametrize("octets", [b"AC1.2", b"AC2.10", b"AC1009", b"AC1032", b"MC0.0"])
def test_a_dwg_is_one_by_its_first_octets_whatever_it_is_called(octets: bytes) -> None:
    assert dwg_version(octets + bytes(10))
    assert refusal(octets + bytes(10), "")[0] == "decode.dwg"


# Shut off


def test_the_program_has_a_private_folder_and_nothing_of_our_environment(
    program: Callable[[str], str], temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    words = (
        f'said="$(stat -c %a .) $(pwd) $HOME ${{AWS_SECRET_ACCESS_KEY:-none}} $(ls | tr "\\n" " ")"\n{told("$said")}'
    )
    [said] = decode(DWG, program(words))["text"]
    mode, folder, home, secret, *files = said.split()
    assert (mode, secret, folder) == ("700", "none", home)
    assert Path(folder).parent == temporary
    assert files == ["complained", "drawing.dwg", "said"]


def told(words: str) -> str:
    """The shell's words for a drawing whose only text is that."""
    return f'printf "%s" "{drawing(TEXT.format(words))}" > drawing.dxf'


def test_the_program_reads_and_writes_nothing_of_ours(program: Callable[[str], str], tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "key").write_text("secret")
    ours = tmp_path / "state"
    words = (
        f"seen=$(cat {ours}/key 2>/dev/null || echo none)\n(echo x > {ours}/new) 2>/dev/null\n"
        f"(echo x > {tmp_path}/program/new) 2>/dev/null\n(rm {ours}/key) 2>/dev/null\n{told('$seen')}"
    )
    assert decode(DWG, program(words))["text"].to_list() == ["none"]
    assert [path.name for path in ours.iterdir()] == ["key"]
    assert not (tmp_path / "program" / "new").exists()


def test_the_program_has_no_network(program: Callable[[str], str]) -> None:
    if not Path("/bin/bash").exists():
        pytest.skip("program:bash")
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.1)
        port = server.getsockname()[1]
        words = f"said=$(bash -c 'echo hello > /dev/tcp/127.0.0.1/{port} && echo out || echo none' 2>/dev/null)"
        assert decode(DWG, program(f"{words}\n{told('$said')}"))["text"].to_list() == ["none"]
        with pytest.raises(TimeoutError):
            server.accept()


@pytest.mark.parametrize(
    "leave", ["sleep {} &", "(sleep {} &)", "setsid sleep {} &", "nohup setsid -f sleep {} > /dev/null 2>&1"]
)
def test_what_the_program_leaves_behind_is_ended_with_it(
    program: Callable[[str], str], tmp_path: Path, leave: str
) -> None:
    mark = f"61{tmp_path.stat().st_ino}"
    decode(DWG, program(f"{leave.format(mark)}\n{WHOLE}"))
    assert of_words(f"sleep {mark}") == []


def test_a_link_or_pipe_in_the_drawing_s_place_is_not_followed(program: Callable[[str], str], tmp_path: Path) -> None:
    (tmp_path / "secret.dxf").write_bytes(drawing(POINT).encode("gbk"))
    for words in (f"ln -s {tmp_path}/secret.dxf drawing.dxf || exit 0", "mkfifo drawing.dxf || exit 0"):
        assert refusal(DWG, program(words)) == ("decode.dwg_not_converted", "the converter wrote nothing")


# What goes wrong with it, each by name


@pytest.mark.parametrize(
    ("words", "detail"),
    [
        ("exit 3", "the converter ended with exit 3"),
        (f"{WHOLE}\nexit 1", "the converter ended with exit 1"),
        ("ulimit -s 256; exec bash -c 'f() { f; }; f'", "the converter ended with signal 11"),
        ("exit 0", "the converter wrote nothing"),
        (": > drawing.dxf", "the converter wrote nothing"),
        ("mkdir drawing.dxf; exit 0", "the converter wrote nothing"),
        (f"{WHOLE}\necho ERROR: Invalid object type 0 >&2", "errors that the converter names: 1"),
        (f"{WHOLE}\necho READ ERROR 0x140 >&2", "errors that the converter names: 1"),
        (f"{WHOLE}\necho 'Warning: checksum: 0xfca9 (calculated) CRC mismatch 0xa03-0xa04' >&2",
         "errors that the converter names: 1"),
        ('head -c 100 "${0%/*}/whole.dxf" > drawing.dxf', "AC1015: the drawing is cut short: it has no EOF"),
        ("echo rubbish > drawing.dxf", "AC1015: line 1: a group code without its value"),
        ("cp drawing.dwg drawing.dxf", "AC1015: AC1015"),
    ],
    ids=[
        *("error", "whole-and-error", "crash", "nothing", "empty", "folder", "complaint", "read-error", "checksum"),
        *("cut", "rubbish", "dwg-again"),
    ],
)  # fmt: skip
def test_what_the_program_does_not_make_whole_is_refused(
    program: Callable[[str], str], words: str, detail: str
) -> None:
    assert refusal(DWG, program(words)) == ("decode.dwg_not_converted", detail)


def test_warnings_of_the_program_refuse_nothing(program: Callable[[str], str]) -> None:
    words = f"{WHOLE}\necho Reading DWG file drawing.dwg\necho Warning: Object handle not found 67/0x43 >&2"
    assert decode(DWG, program(words)).height == 1


def test_a_program_that_hangs_is_ended(
    program: Callable[[str], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dwg, "WAIT_S", 2.0)
    mark = f"62{tmp_path.stat().st_ino}"
    began_s = time.monotonic()
    assert refusal(DWG, program(f"sleep {mark}")) == ("decode.too_large", "the converter took more than 2 s")
    assert time.monotonic() - began_s < 30
    assert of_words(f"sleep {mark}") == []


def test_a_program_ends_with_the_worker_that_is_killed(
    program: Callable[[str], str], tmp_path: Path, temporary: Path
) -> None:
    mark = f"63{tmp_path.stat().st_ino}"
    worker = [sys.executable, "-c", WORKER, program(f"exec sleep {mark}"), str(temporary)]
    with subprocess.Popen(worker, cwd=Path(__file__).parents[2]) as running:
        assert waited_for(lambda: of_words(f"sleep {mark}") != [])
        running.kill()
    assert waited_for(lambda: of_words(f"sleep {mark}") == [])
    for left in temporary.iterdir():  # as after any kill
        shutil.rmtree(left)


def waited_for(what: Callable[[], bool]) -> bool:
    until_s = time.monotonic() + 30
    while not what() and time.monotonic() < until_s:
        time.sleep(0.05)
    return what()


@pytest.mark.parametrize(
    "words",
    [
        "yes | head -c 10000000000 > drawing.dxf",
        "n=0; while :; do yes | head -c 1000000 > f$n || exit 1; n=$((n+1)); done",
        "yes >&2",
    ],
    ids=["one-file", "many-files", "complaints"],
)
def test_a_program_that_writes_10_gb_is_ended(
    program: Callable[[str], str], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dwg, "OUTPUT_BYTES", 8 << 20)
    assert refusal(DWG, program(words)) == ("decode.too_large", "the converter wrote 8 MiB or more")


def test_a_program_without_memory_is_ended(program: Callable[[str], str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dwg, "MEMORY_BYTES", 200 << 20)
    words = "exec dd if=drawing.dwg of=drawing.dxf bs=1G"
    assert refusal(DWG, program(words)) == ("decode.dwg_not_converted", "the converter ended with exit 1")


def test_what_it_writes_keeps_to_the_limits_of_any_drawing(program: Callable[[str], str]) -> None:
    (Path(program("")).parent / "whole.dxf").write_bytes(
        drawing(TEXT.format("x" * (dxf_tags.LINE_CHARACTERS + 1))).encode()
    )
    assert refusal(DWG, program(WHOLE))[0] == "decode.too_large"


def test_a_program_that_is_not_there_or_may_not_run_is_the_operator_s_to_mend(
    program: Callable[[str], str], tmp_path: Path
) -> None:
    Path(path := program(WHOLE)).chmod(0o644)
    for wrong in (path, str(tmp_path / "none")):
        with pytest.raises(Misconfigured) as problem:
            decode(DWG, wrong)
        assert problem.value.code == "config.no_converter"
        assert wrong in problem.value.detail


def test_where_the_system_cannot_shut_it_off_nothing_is_run(
    program: Callable[[str], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dwg, "_DENIED", {})
    with pytest.raises(Misconfigured) as problem:
        decode(DWG, program(WHOLE))
    assert problem.value.code == "config.no_isolation"


def test_the_program_says_its_version(program: Callable[[str], str]) -> None:
    assert (
        dwg.version_of(program('test "$1" = --version && printf "dwg2dxf 0.13.3\\007\\nmore\\n"')) == "dwg2dxf 0.13.3"
    )


# LibreDWG itself


@pytest.fixture(scope="module")
def libredwg() -> str:
    path = os.environ.get("YONGTONG_DWG2DXF", "") or shutil.which("dwg2dxf") or ""
    if not path:
        pytest.skip("program:dwg2dxf (LibreDWG; set YONGTONG_DWG2DXF)")
    return path


@pytest.mark.parametrize("name", SAMPLES)
def test_libredwg_makes_records_of_every_sample(libredwg: str, name: str, shared_data: Callable[[str], Path]) -> None:
    frame = decode((shared_data("dxf_samples") / f"libredwg_{name}.dwg").read_bytes(), libredwg)
    kinds = Counter(frame["entity"])
    if name.startswith("Text"):
        assert kinds == {"MTEXT": 1}
    else:
        assert kinds == {"LINE": 16, "TEXT": 1} if name == "r14_v" else kinds.total() == 6


@pytest.mark.parametrize("version", ["2000", "2018"])
def test_libredwg_makes_of_a_dwg_what_its_dxf_says(
    libredwg: str, version: str, shared_data: Callable[[str], Path]
) -> None:
    folder = shared_data("dxf_samples")
    ours = decode((folder / f"libredwg_sample_{version}.dwg").read_bytes(), libredwg)
    theirs = decode((folder / f"libredwg_sample_{version}.dxf").read_bytes(), "")
    said = [
        Counter(frame.select("entity", "text", "vertices", *(_rounded(name, 6) for name in ("x", "y", "z"))).rows())
        for frame in (ours, theirs)
    ]
    assert said[0] == said[1]


def test_libredwg_makes_the_same_components_of_the_street_s_dwg(
    libredwg: str, shared_data: Callable[[str], Path], tell: Callable[[str], None]
) -> None:
    feed = load_feeds([FEEDS])["planning-map-500"]
    made = []
    for name in ("pipe_map.dwg", "pipe_map_R2004_ansi936.dxf"):
        content = file_content(shared_data("pipe_survey") / name)
        options = {**feed.options, "dwg2dxf": libredwg}
        records = pl.concat(take(batch.frame, feed) for batch in dxf.decode([content], options))
        mapped = map_records(records, feed)
        said = mapped.candidates.drop("delivery", "source_key").with_columns(_rounded("x", 6), _rounded("y", 6))
        made.append((records.height, said, Counter(mapped.findings["code"])))
    assert [height for height, _, _ in made] == [4369, 4369]
    assert made[0][1].equals(made[1][1])
    assert made[0][2] == made[1][2]
    tell(f"street survey by LibreDWG: {made[0][1].height} candidates of {made[0][0]} records, as its DXF gives them")


def test_libredwg_keeps_the_xdata_that_other_converters_let_go(
    libredwg: str, shared_data: Callable[[str], Path]
) -> None:
    with dwg.as_dxf(file_content(shared_data("pipe_survey") / "pipe_map.dwg"), libredwg) as drawn:
        assert drawn.read().split().count(b"egw_xdata") > 4_000


@pytest.mark.parametrize("cut", [0.2, 0.5, 0.9])
def test_libredwg_makes_no_whole_drawing_of_a_part(
    libredwg: str, cut: float, shared_data: Callable[[str], Path]
) -> None:
    octets = (shared_data("pipe_survey") / "pipe_map.dwg").read_bytes()
    assert refusal(octets[: int(len(octets) * cut)], libredwg)[0] == "decode.dwg_not_converted"


def _rounded(name: str, digits: int) -> pl.Expr:
    return pl.col(name).cast(pl.Float64).round(digits)
