"""Servers of a city's authority: one for files, as rude as it is told to be, and OpenSSL's own responder."""

import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


class FileServer:
    """Gives what is put at a path. asked: paths in the order of asking."""

    def __init__(self) -> None:
        self.files: dict[str, bytes | Callable[[BaseHTTPRequestHandler], None]] = {}
        self.asked: list[str] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            posted = b""

            def do_GET(self) -> None:
                outer.asked.append(self.path)
                found = outer.files.get(self.path)
                if found is None:
                    self.send_error(404)
                elif callable(found):
                    found(self)
                else:
                    self.send_response(200)
                    self.send_header("Content-Length", str(len(found)))
                    self.end_headers()
                    self.wfile.write(found)

            def do_POST(self) -> None:
                self.posted = self.rfile.read(int(self.headers["Content-Length"]))
                self.do_GET()

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}{path}"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@contextmanager
def file_server() -> Iterator[FileServer]:
    server = FileServer()
    try:
        yield server
    finally:
        server.close()


CONFIG = """
[ca]
default_ca = ours
[ours]
dir = .
database = index.txt
new_certs_dir = .
serial = serial
crlnumber = crlnumber
certificate = ca.pem
private_key = ca.key
default_md = sha256
default_days = 30
default_crl_days = 1
policy = any
[any]
commonName = supplied
[root]
basicConstraints = critical, CA:TRUE
keyUsage = critical, keyCertSign, cRLSign
subjectKeyIdentifier = hash
[bureau]
basicConstraints = critical, CA:FALSE
keyUsage = critical, digitalSignature
authorityKeyIdentifier = keyid
[responder]
basicConstraints = critical, CA:FALSE
keyUsage = critical, digitalSignature
extendedKeyUsage = critical, OCSPSigning
"""
SM2 = ("-sigopt", "distid:1234567812345678")


class OpensslAuthority:
    """A CA run by the `openssl` program in a folder: issues, revokes, lists, answers."""

    def __init__(self, folder: Path, algorithm: str = "P-256") -> None:
        self.folder, self._sm2 = folder, algorithm == "SM2"
        folder.mkdir(parents=True)
        (folder / "ca.cnf").write_text(CONFIG)
        for name, text in (("index.txt", ""), ("serial", "1001\n"), ("crlnumber", "01\n")):
            (folder / name).write_text(text)
        self._key("ca")
        self.run("req", "-x509", "-new", "-key", "ca.key", "-out", "ca.pem", "-subj", "/CN=City CA", "-days", "60",
                 "-config", "ca.cnf", "-extensions", "root", *self._digest(), *(SM2 if self._sm2 else ()))  # fmt: skip

    def run(self, *arguments: str) -> bytes:
        done = subprocess.run(["openssl", *arguments], cwd=self.folder, capture_output=True, check=False)
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout

    def issue(self, subject: str, extensions: str = "bureau") -> Path:
        """A certificate with a new key of its own; the PEM file, beside `{subject}.key`."""
        self._key(subject)
        sm2 = SM2 if self._sm2 else ()
        self.run(
            "req", "-new", "-key", f"{subject}.key", "-out", "r.csr", "-subj", f"/CN={subject}", *self._digest(), *sm2
        )
        self._ca("-in", "r.csr", "-out", f"{subject}.pem", "-extensions", extensions, "-notext")
        return self.folder / f"{subject}.pem"

    def revoke(self, subject: str) -> None:
        self._ca("-revoke", f"{subject}.pem")

    def crl(self, *more: str) -> bytes:
        """A new revocation list, in DER."""
        self._ca("-gencrl", "-out", "crl.pem", *more)
        self.run("crl", "-in", "crl.pem", "-outform", "DER", "-out", "crl.der")
        return (self.folder / "crl.der").read_bytes()

    @contextmanager
    def responder(self) -> Iterator[str]:
        """OpenSSL's own OCSP responder on a free port; gives its address. It reads the CA's index at each question."""
        with closing(socket.socket()) as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        command = ["openssl", "ocsp", "-port", str(port), "-index", "index.txt", "-CA", "ca.pem", "-nmin", "60"]
        command += ["-rsigner", "responder.pem", "-rkey", "responder.key"]
        with subprocess.Popen(command, cwd=self.folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
            try:
                assert process.stdout is not None
                while b"waiting" not in process.stdout.readline():  # a connection to try it would hold it up
                    assert process.poll() is None
                yield f"http://127.0.0.1:{port}/"
            finally:
                process.terminate()

    def _key(self, name: str) -> None:
        kind = ["-algorithm", "SM2"] if self._sm2 else ["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"]
        self.run("genpkey", *kind, "-out", f"{name}.key")

    def _digest(self) -> tuple[str, ...]:
        return ("-sm3",) if self._sm2 else ("-sha256",)

    def _ca(self, *arguments: str) -> None:
        sm2 = ("-md", "sm3", *SM2, "-vfyopt", SM2[1]) if self._sm2 else ()
        self.run("ca", "-batch", "-config", "ca.cnf", *sm2, *arguments)
