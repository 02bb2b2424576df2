"""Encryption, against a daemon whose ports both speak TLS; certificates are made with the openssl command."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from daemon import ACQ, PATIENCE_S, Daemon

from tilecatcher import BadInput, Client, Sender, ServerUnreachable, Tile, minimal_log, tls_context

if shutil.which("openssl") is None:
    pytest.skip("no openssl command to make certificates with", allow_module_level=True)


def openssl(directory: Path, line: str) -> None:
    subprocess.run(["openssl", *line.split()], cwd=directory, check=True, capture_output=True)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a CA, a server's and a client's certificates and keys, made as deploy/README.md says."""
    directory = tmp_path_factory.mktemp("certificates")
    key = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes"
    openssl(directory, f"req -x509 {key} -keyout ca.key -out ca.pem -days 30 -subj /CN=ca")
    for name, san in (("server", "IP:127.0.0.1"), ("camera", "DNS:camera")):
        openssl(directory, f"req {key} -keyout {name}.key -out {name}.csr -subj /CN={name}")
        (directory / f"{name}.ext").write_text(f"subjectAltName={san}\n")
        sign = f"x509 -req -in {name}.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 30"
        openssl(directory, f"{sign} -extfile {name}.ext -out {name}.pem")
        (directory / f"{name}.key").chmod(0o600)
    return directory


@pytest.fixture
def encrypted(tmp_path: Path, files: Path) -> Iterator[Daemon]:
    settings = ["capture.tls_address=127.0.0.1:0", f"capture.tls_client_ca={files}/ca.pem"]
    for port in ("capture", "http"):
        settings += [f"{port}.tls_certificate={files}/server.pem", f"{port}.tls_key={files}/server.key"]
    running = Daemon(tmp_path / "data", tuple(settings))
    yield running
    running.kill()


def test_tiles_go_out_and_come_back_encrypted(encrypted: Daemon, files: Path) -> None:
    context = tls_context(files / "ca.pem", files / "camera.pem", files / "camera.key")
    url = f"https://127.0.0.1:{encrypted.http_port}"
    with Client(url, encrypted.capture_tls, timeout_s=PATIENCE_S, ssl_context=context) as client:
        assert client.start_acquisition(f"{ACQ}_4x4_logfile.ini", minimal_log(4, 4)) == ACQ
        images = [np.full((400, 300 * row + 1), row, np.uint8) for row in range(4)]
        tiles = [Tile(ACQ, 0, row, image.tobytes()) for row, image in enumerate(images)]
        with client.sender(window=4) as sender:
            pending = [sender.send(tile) for tile in tiles]
        assert [each.result().status for each in pending] == [0] * 4
        for row, tile in enumerate(tiles):
            assert client.content(client.tile(ACQ, 0, row)) == b"".join(bytes(part) for part in tile.parts)


def test_who_is_not_trusted_gets_nowhere(encrypted: Daemon, files: Path) -> None:
    nobody = tls_context(files / "ca.pem")
    sender = Sender(encrypted.capture_tls, ssl_context=nobody, retry_s=0.0, timeout_s=PATIENCE_S)
    with pytest.raises(ServerUnreachable, match="(?i)certificate required|alert|closed|reset|broken"):
        sender.send(Tile(ACQ, 0, 0, b"x")).result()
    stranger = tls_context(files / "camera.pem")
    with pytest.raises(ServerUnreachable, match="(?i)certificate"):
        Sender(encrypted.capture_tls, ssl_context=stranger, retry_s=0.0, timeout_s=PATIENCE_S)
    with pytest.raises(ServerUnreachable, match="(?i)certificate"):
        Client(f"https://127.0.0.1:{encrypted.http_port}", ssl_context=stranger).acquisition(ACQ)


def test_files_that_are_none_are_named(files: Path, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="nowhere.pem"):
        tls_context(tmp_path / "nowhere.pem")
    with pytest.raises(BadInput, match="cert and key"):
        tls_context(files / "ca.pem", files / "camera.pem")
