"""The bare endpoint that signed deliveries are measured against: parse, XSD, answer. No proof, no disk.

`python -m bench.peer FOLDER PORT` serves it with the server's keys of the folder (see `bench.parties`).
"""

import ssl
import sys
from pathlib import Path

import uvicorn
from lxml import etree
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

SCHEMA = Path(__file__).parents[1] / "exchange/contracts/yongtong.xsd"
ANSWER = b"""<s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/"><s:Body><ok/></s:Body></s:Envelope>"""


def make_app() -> Starlette:
    """POST anywhere: the Body's only child must be valid by the published schema."""
    schema = etree.XMLSchema(etree.parse(SCHEMA))
    parser = etree.XMLParser(resolve_entities=False, no_network=True)

    async def take(request: Request) -> Response:
        operation = etree.fromstring(await request.body(), parser)[-1][0]
        if not schema.validate(etree.ElementTree(operation)):
            return PlainTextResponse(str(schema.error_log), status_code=400)
        return Response(ANSWER, media_type="text/xml; charset=utf-8")

    return Starlette(routes=[Route("/soap/feeds", take, methods=["POST"])])


def main() -> None:
    """Serve until ended."""
    folder, port = Path(sys.argv[1]), int(sys.argv[2])
    uvicorn.run(
        make_app(),
        port=port,
        http="httptools",
        log_level="warning",
        access_log=False,
        ssl_certfile=str(folder / "server.pem"),
        ssl_keyfile=str(folder / "server.key"),
        ssl_ca_certs=str(folder / "ca.pem"),
        ssl_cert_reqs=ssl.CERT_REQUIRED,
    )


if __name__ == "__main__":
    main()
