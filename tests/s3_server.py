"""moto as a store that keeps what it has: `python -m tests.s3_server PORT FILE`.

moto keeps everything in memory. Whatever changes something is therefore written to the file first, and asked again by
a server that is started over it, before it listens: it then has what it had, but for uploads in parts, whose ids are
new.
"""

import base64
import io
import json
import logging
import os
import sys
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import run_simple
from werkzeug.test import Client

CHANGING: Final = ("PUT", "POST", "DELETE")


class Remembering:
    """A WSGI application that writes down what it is asked, before it does it."""

    def __init__(self, application: Any, file: Path) -> None:
        self._application, self._lock = application, threading.Lock()
        known = file.read_bytes().splitlines(keepends=True) if file.exists() else []
        asking = Client(application)
        for line in known:
            if line.endswith(b"\n"):  # else a kill cut it short, and nobody was answered
                asked = json.loads(line)
                asking.open(**{**asked, "data": base64.b64decode(asked["data"])})
        self._file = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.write(self._file, b"".join(line for line in known if line.endswith(b"\n")))

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        if environ["REQUEST_METHOD"] in CHANGING:
            octets = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
            environ["wsgi.input"] = io.BytesIO(octets)
            line = json.dumps(
                {
                    "method": environ["REQUEST_METHOD"],
                    "path": environ["PATH_INFO"],
                    "query_string": environ["QUERY_STRING"],
                    "headers": {
                        name.removeprefix("HTTP_").replace("_", "-"): value
                        for name, value in environ.items()
                        if name.startswith("HTTP_") or name == "CONTENT_TYPE"
                    },
                    "data": base64.b64encode(octets).decode(),
                }
            )
            with self._lock:
                os.write(self._file, line.encode() + b"\n")
        answer: Iterable[bytes] = self._application(environ, start_response)
        return answer


def main(port: int, file: Path) -> None:
    """Serve on loopback until killed."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    application = DomainDispatcherApplication(create_backend_app)
    run_simple("127.0.0.1", port, Remembering(application, file), threaded=True)


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
