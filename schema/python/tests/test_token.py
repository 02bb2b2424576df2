"""A daemon that asks for a token: with the right one it works, with none or a wrong one it says so, and nobody shows it."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from daemon import ACQ, Daemon, program

from tilecatcher import BadInput, Client, RequestRefused, Tile, minimal_log


def add_token(tokens: Path, name: str, scope: str) -> str:
    """Adds a token to a daemon's file; returns it."""
    command = [program(), "token", "add", name, "--scope", scope, "--tokens", str(tokens)]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout


def test_a_token_opens_what_its_scope_says(tmp_path: Path) -> None:
    tokens = tmp_path / "tokens"
    sends, reads = add_token(tokens, "sends", "ingest"), add_token(tokens, "reads", "read")
    running = Daemon(tmp_path / "data", settings=(f"access.tokens={tokens}",))
    try:
        with running.client(token=sends) as client:
            assert client.start_acquisition(f"{ACQ}_8x8_logfile.ini", minimal_log(8, 8)) == ACQ
            with client.sender() as sender:
                sender.send(Tile(acq=ACQ, col=1, row=2, image=b"an image"))
        with running.client(token=reads) as client:
            assert client.content(client.tile(ACQ, col=1, row=2)) == b"an image"
            with pytest.raises(RequestRefused) as lacking:
                client.end_acquisition(ACQ)
        with running.client() as client, pytest.raises(RequestRefused) as nameless:
            client.acquisition(ACQ)
        assert (lacking.value.status, nameless.value.status) == (403, 401)
    finally:
        running.kill()


@pytest.mark.parametrize("token", ["", " \n", "two words", "two\nlines", "\u00e9"])
def test_what_is_no_token_is_refused_and_not_shown(token: str) -> None:
    with pytest.raises(BadInput) as refused:
        Client(token=token)
    assert "add" in str(refused.value) and (not token.strip() or token not in str(refused.value))
