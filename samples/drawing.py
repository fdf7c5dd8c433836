"""Writes drawings: ASCII DXF of AutoCAD 2000 (AC1015) in GBK, as South CASS exports them, or of AutoCAD 2010 (AC1024)
in UTF-8. Plane coordinates in metres.

What GBK lacks is written as `\\U+XXXX`, as AutoCAD does. The same calls give the same bytes.
"""

import codecs
from typing import Final

GBK, UTF_8 = "AC1015", "AC1024"  # $ACADVER, which says the encoding: from AC1021 on it is UTF-8 whatever the page says
_ENCODINGS: Final = {GBK: "gbk", UTF_8: "utf-8"}
_MODEL_SPACE: Final = "*Model_Space"
_PAPER_SPACE: Final = "*Paper_Space"


def _escaped(problem: UnicodeError) -> tuple[str, int]:
    assert isinstance(problem, UnicodeEncodeError)
    missing = problem.object[problem.start : problem.end]
    return "".join(f"\\U+{ord(character):04X}" for character in missing), problem.end


codecs.register_error("dxf-escape", _escaped)


class Drawing:
    """A drawing as it grows. Each call adds one entity to model space and gives its handle, upper-case hex."""

    def __init__(self) -> None:
        self._entities: list[str] = []
        self._layers: dict[str, None] = {"0": None}
        self._blocks: dict[str, None] = {}
        self._handle = 0xFF

    def insert(
        self,
        layer: str,
        block: str,
        place: tuple[float, float, float],
        *,
        code: str = "",
        rotation: float = 0.0,
        attributes: dict[str, str] | None = None,
        mirrored: bool = False,
    ) -> str:
        """A symbol. code: of CASS, as XDATA; attributes: tag to text; mirrored: drawn from below, extrusion 0,0,-1."""
        self._blocks[block] = None
        handle = self._begin("INSERT", layer, "AcDbBlockReference")
        x, y, z = (-place[0], place[1], -place[2]) if mirrored else place
        self._entities.append(("66\n1\n" if attributes else "") + f"2\n{block}\n{_place(x, y, z)}50\n{rotation:.4f}\n")
        if mirrored:
            self._entities.append("210\n0.0\n220\n0.0\n230\n-1.0\n")
        self._code(code)
        for tag, text in (attributes or {}).items():
            self._begin("ATTRIB", layer, "AcDbText")
            self._entities.append(f"{_place(x, y, z)}40\n1.0\n1\n{text}\n100\nAcDbAttribute\n2\n{tag}\n70\n0\n")
        if attributes:
            self._begin("SEQEND", layer, "")
        return handle

    def text(self, layer: str, text: str, place: tuple[float, float, float]) -> str:
        """A line of text, 1 m high on the ground."""
        handle = self._begin("TEXT", layer, "AcDbText")
        self._entities.append(f"{_place(*place)}40\n1.0\n1\n{text}\n100\nAcDbText\n")
        return handle

    def line(self, layer: str, ends: list[tuple[float, float]], *, code: str = "") -> str:
        """A straight line between two ends."""
        (x, y), (x2, y2) = ends
        handle = self._begin("LINE", layer, "AcDbLine")
        self._entities.append(f"{_place(x, y, 0.0)}11\n{x2:.4f}\n21\n{y2:.4f}\n31\n0.0000\n")
        self._code(code)
        return handle

    def polyline(self, layer: str, corners: list[tuple[float, float]], *, closed: bool, code: str = "") -> str:
        """A flat polyline."""
        handle = self._begin("LWPOLYLINE", layer, "AcDbPolyline")
        vertices = "".join(f"10\n{x:.4f}\n20\n{y:.4f}\n" for x, y in corners)
        self._entities.append(f"90\n{len(corners)}\n70\n{int(closed)}\n43\n0.0\n{vertices}")
        self._code(code)
        return handle

    def octets(self, version: str = GBK) -> bytes:
        """The whole file, in GBK or in UTF_8."""
        text = "".join(
            [self._header(version), self._tables(), self._block_definitions(), _section("ENTITIES", self._entities)]
        )
        whole = text + _section("OBJECTS", [_OBJECTS]) + "0\nEOF\n"
        return whole.replace("\n", "\r\n").encode(_ENCODINGS[version], errors="dxf-escape")

    def _begin(self, kind: str, layer: str, subclass: str) -> str:
        self._layers[layer] = None
        self._handle += 1
        handle = f"{self._handle:X}"
        about = f"100\n{subclass}\n" if subclass else ""
        self._entities.append(f"0\n{kind}\n5\n{handle}\n330\n{_OWNER}\n100\nAcDbEntity\n8\n{layer}\n{about}")
        return handle

    def _code(self, code: str) -> None:
        if code:
            self._entities.append(f"1001\nSOUTH\n1000\n{code}\n")

    def _header(self, version: str) -> str:
        seed = f"9\n$HANDSEED\n5\n{self._handle + 0x100000:X}\n"
        return _section("HEADER", [f"9\n$ACADVER\n1\n{version}\n9\n$DWGCODEPAGE\n3\nANSI_936\n", seed])

    def _handles(self, first: int) -> dict[str, str]:
        """A handle for each block name, above those of the entities."""
        names = [_MODEL_SPACE, _PAPER_SPACE, *self._blocks]
        numbered = {name: f"{self._handle + first + number:X}" for number, name in enumerate(names)}
        return numbered | {_MODEL_SPACE: _OWNER, _PAPER_SPACE: "1B"} if first == _RECORDS else numbered

    def _tables(self) -> str:
        layer = "100\nAcDbLayerTableRecord\n2\n{}\n70\n0\n62\n7\n6\nContinuous\n390\n0\n"
        type_ = "100\nAcDbLinetypeTableRecord\n2\n{}\n70\n0\n3\n\n72\n65\n73\n0\n40\n0.0\n"
        style = "100\nAcDbTextStyleTableRecord\n2\n{}\n70\n0\n40\n0.0\n41\n1.0\n50\n0.0\n71\n0\n42\n2.5\n3\ntxt\n4\n\n"
        first = self._handle + 0x80000
        tables = [
            _table("LTYPE", "5", ["ByBlock", "ByLayer", "Continuous"], type_, first),
            _table("LAYER", "2", list(self._layers), layer, first + 0x1000),
            _table("STYLE", "3", ["Standard"], style, first + 0x2000),
            _table("APPID", "9", ["ACAD", "SOUTH"], "100\nAcDbRegAppTableRecord\n2\n{}\n70\n0\n", first + 0x3000),
        ]
        records = "".join(
            f"0\nBLOCK_RECORD\n5\n{handle}\n330\n7\n100\nAcDbSymbolTableRecord\n100\nAcDbBlockTableRecord\n2\n{name}\n"
            for name, handle in self._handles(_RECORDS).items()
        )
        head = f"0\nTABLE\n2\nBLOCK_RECORD\n5\n7\n330\n0\n100\nAcDbSymbolTable\n70\n{len(self._blocks) + 2}\n"
        return _section("TABLES", [*tables, head, records, "0\nENDTAB\n"])

    def _block_definitions(self) -> str:
        """Model and paper space, empty as they must be here, and a small circle for each symbol."""
        records, begins, ends, circles = (self._handles(at) for at in (_RECORDS, _BEGINS, _ENDS, _CIRCLES))
        parts = []
        for name, record in records.items():
            entity, end = f"330\n{record}\n100\nAcDbEntity\n8\n0\n", f"0\nENDBLK\n5\n{ends[name]}\n"
            parts.append(f"0\nBLOCK\n5\n{begins[name]}\n{entity}100\nAcDbBlockBegin\n2\n{name}\n70\n0\n")
            parts.append(f"{_place(0.0, 0.0, 0.0)}3\n{name}\n1\n\n")
            if not name.startswith("*"):
                circle = f"0\nCIRCLE\n5\n{circles[name]}\n{entity}100\nAcDbCircle\n"
                parts.append(f"{circle}{_place(0.0, 0.0, 0.0)}40\n0.5\n")
            parts.append(f"{end}{entity}100\nAcDbBlockEnd\n")
        return _section("BLOCKS", parts)


_OWNER: Final = "1F"  # the block record of model space
_RECORDS, _BEGINS, _ENDS, _CIRCLES = 0x90000, 0xA0000, 0xB0000, 0xC0000
_OBJECTS: Final = (
    "0\nDICTIONARY\n5\nC\n330\n0\n100\nAcDbDictionary\n281\n1\n3\nACAD_GROUP\n350\nD\n"
    "0\nDICTIONARY\n5\nD\n330\nC\n100\nAcDbDictionary\n281\n1\n"
)


def _place(x: float, y: float, z: float) -> str:
    return f"10\n{x:.4f}\n20\n{y:.4f}\n30\n{z:.4f}\n"


def _section(name: str, parts: list[str]) -> str:
    return "".join([f"0\nSECTION\n2\n{name}\n", *parts, "0\nENDSEC\n"])


def _table(name: str, handle: str, entries: list[str], form: str, first: int) -> str:
    """One symbol table; `form` is what an entry says after its handle, its name in place of {}."""
    head = f"0\nTABLE\n2\n{name}\n5\n{handle}\n330\n0\n100\nAcDbSymbolTable\n70\n{len(entries)}\n"
    begun = [f"0\n{name}\n5\n{first + at:X}\n330\n{handle}\n100\nAcDbSymbolTableRecord\n" for at in range(len(entries))]
    return head + "".join(b + form.format(entry) for b, entry in zip(begun, entries, strict=True)) + "0\nENDTAB\n"
