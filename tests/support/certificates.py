"""Certificates of a test's own, made by openssl."""

import ssl
import subprocess
from pathlib import Path

_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")


def authority(folder: Path, name: str) -> Path:
    """Make a CA and return its certificate; the key lies beside it."""
    certificate = folder / f"{name}.pem"
    _openssl("req", "-x509", *_KEY, "-days", "2", "-subj", f"/CN={name}", *_out(folder, name), "-out", certificate)
    return certificate


def server(folder: Path, authority: Path, host: str) -> ssl.SSLContext:
    """Return the TLS context of a server whose certificate the CA has made out to one host."""
    request, certificate, extensions = (folder / f"{host}.{end}" for end in ("csr", "pem", "ext"))
    extensions.write_text(f"subjectAltName=DNS:{host}\n", encoding="ascii")
    _openssl("req", *_KEY, "-subj", f"/CN={host}", *_out(folder, host), "-out", request)
    signing = ("-CA", authority, "-CAkey", authority.with_suffix(".key"), "-CAcreateserial", "-days", "2")
    _openssl("x509", "-req", "-in", request, *signing, "-extfile", extensions, "-out", certificate)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, folder / f"{host}.key")
    return context


def _out(folder: Path, name: str) -> tuple[object, ...]:
    return ("-keyout", folder / f"{name}.key")


def _openssl(*words: object) -> None:
    subprocess.run(["openssl", *map(str, words)], check=True, capture_output=True, timeout=60)
