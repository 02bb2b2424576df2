"""The HTTP port's calls: acquisitions, tiles, images, the work queue. For one thread at a time.

Every call raises ServerUnreachable (nobody answers), WrongProtocol (somebody else does) and RequestRefused (the server
says no; its kinds NotFound and UnknownAcquisition); what else a call raises, it says. Answers without a type of their
own are the server's JSON, described at `/service/v1/openapi.json`.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterable, Iterator
from os import PathLike
from pathlib import Path
from types import TracebackType
from typing import Any, Union

import numpy as np

from . import _checksum, _tiff
from ._http import Http, Parameters
from .errors import BadInput, ContentMismatch, UnknownAcquisition
from .sender import Sender
from .tile import StoredTile, Tile

File = Union[str, PathLike[str]]


class Client:
    """A server: its HTTP port, and its capture port for `sender`."""

    def __init__(
        self,
        http: str = "http://127.0.0.1:5001",
        capture: tuple[str, int] | None = None,
        *,
        timeout_s: float = 60.0,
        ssl_context: ssl.SSLContext | None = None,
        token: str | None = None,
    ) -> None:
        """`http` is a URL, `capture` host and port; `timeout_s` bounds each wait. Connects when the first call is made.
        With `ssl_context`, see `tls_context`, the capture port is encrypted, and so is HTTP where the URL says https.

        `token` is shown to the HTTP port, where the daemon asks for one; the capture port takes none.

        Raises BadInput: `http` is no URL, `token` no token.
        """
        self._http = Http(http, timeout_s, ssl_context, token)
        self._capture = capture
        self._timeout_s = timeout_s
        self._ssl_context = ssl_context

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Closes the connection; the next call opens it again."""
        self._http.close()

    def sender(self, **options: Any) -> Sender:
        """A connection to the capture port; `options` as for `Sender`.

        Raises BadInput: this client was made without `capture`. ServerUnreachable.
        """
        if self._capture is None:
            raise BadInput("this client knows no capture port: Client(http=..., capture=(host, port))")
        return Sender(self._capture, **{"timeout_s": self._timeout_s, "ssl_context": self._ssl_context, **options})

    def start_acquisition(self, log_file: File, log: str | bytes | None = None) -> int:
        """Starts an acquisition with its log; returns its number: the digits before the first `_` of the file's name.

        `log` is the content when there is no such file; see `minimal_log`.
        """
        content = Path(log_file).read_bytes() if log is None else log
        content = content.encode() if isinstance(content, str) else content
        started = self._http.post("/service/v1/start-acquisition", parts=[_part("acq-inilog", log_file, content)])
        return int(started["uid"])

    def create_rois(self, acq: int, roi_tiles: File, roi_spec: File) -> None:
        """Creates an acquisition's regions from the microscope's two files; what is there is kept."""
        parts = [_part("roi-tiles", roi_tiles), _part("roi-spec", roi_spec)]
        self._http.post(f"/service/v1/create-rois/{acq}", parts=parts)

    def store_files(self, acq: int, files: Iterable[File]) -> list[dict[str, Any]]:
        """Keeps ancillary files with an acquisition; each is one dict with `id`, `name`, `jfs_key`.

        Raises RequestRefused naming those that could not be stored; the others are.
        """
        parts = [_part("ancillary-file", file) for file in files]
        answer = self._http.post(f"/service/v1/store-ancillary-files/{acq}", parts=parts)
        return list(answer.get("af_results", []))

    def end_acquisition(self, acq: int, files: Iterable[File] = ()) -> dict[str, Any]:
        """Ends an acquisition, keeping files with it; returns how complete it is. Late tiles are still accepted.

        Raises RequestRefused naming files that could not be stored; the acquisition is ended then, too.
        """
        parts = [_part("ancillary-file", file) for file in files]
        return dict(self._http.post(f"/service/v1/end-acquisition/{acq}", parts=parts)["completeness"])

    def completeness(self, acq: int, offset: int = 0, length: int | None = None) -> dict[str, Any]:
        """How many tiles are expected, received, missing, and a page of the missing ones."""
        page = {"offset": offset, "length": length}
        return dict(self._http.get_json(f"/service/v1/acquisition/{acq}/completeness", page))

    def acquisition(self, acq: int) -> dict[str, Any]:
        """What an acquisition holds and how far it is."""
        return dict(self._http.get_json(f"/api/v1/acquisitions/{acq}"))

    def acquisitions(self, *, page: int = 1000, **filters: str | int | None) -> Iterator[dict[str, Any]]:
        """The acquisitions that were started, by number; asks for `page` of them at a time.

        `filters` are the route's parameters with `_` for `-`: sample, project, owner, stack, mosaic_type, acq_from ...
        """
        offset, found = 0, page
        while found:
            parameters = {**_parameters(filters), "offset": offset, "length": page}
            acquisitions = self._http.get_json("/service/v1/acquisitions", parameters)["acquisitions"]
            yield from acquisitions
            found = len(acquisitions)
            offset += found

    def tiles(
        self, acq: int, *, frame_type: str = "stable", page: int = 1000, **filters: str | int | None
    ) -> Iterator[StoredTile]:
        """An acquisition's stored tiles, each once, in the order in which they were first stored.

        `frame_type`: stable, drift or all. `filters`: col, row, camera, tile_state, tile_from, tile_to. Asks for `page`
        (1 to 10000) tiles at a time; holds one page.
        """
        parameters = {**_parameters(filters), "frame-type": frame_type, "length": page}
        while True:
            answer = self._http.get_json(f"/api/v1/acquisitions/{acq}/tiles", parameters)
            yield from map(StoredTile.from_json, answer["tiles"])
            if "next_cursor" not in answer:
                return
            parameters["cursor"] = answer["next_cursor"]

    def tile(self, acq: int, col: int, row: int) -> StoredTile:
        """The stable tile at a place.

        Raises NotFound: none is stored there.
        """
        found = self._http.get_json(f"/service/v1/acquisition/{acq}/tile/{col}/{row}")
        return self.tile_by_id(found["tile_id"])

    def tile_by_id(self, tile_id: int) -> StoredTile:
        """The tile with this id, in its current version.

        Raises NotFound: there is none.
        """
        return StoredTile.from_json(self._http.get_json(f"/api/v1/tiles/{tile_id}"))

    def content(self, tile: StoredTile) -> bytes:
        """The image file's bytes as they were sent, of just this version.

        Raises ContentMismatch: what came is not what the tile's checksum says.
        """
        content = self._http.get(f"/api/v1/contents/{tile.content_key}")
        found = _checksum.text(tile.algorithm, _checksum.digest(tile.algorithm, [content]))
        if found != tile.checksum:
            came = f"{len(content)} bytes with {found}"
            raise ContentMismatch(f"tile {tile.id}: {came} came, not {tile.size} with {tile.checksum}: read it again")
        return content

    def image(self, tile: StoredTile) -> np.ndarray:
        """The image, verified: an array `rows x cols` in this machine's byte order, uint8 or uint16 by the file's bits.

        Raises UnreadableImage: not an uncompressed grey TIFF, and tilecatcher[tiff] is not installed or does not read
        it. ContentMismatch.
        """
        return _tiff.decode(self.content(tile))

    def not_stored(self, tiles: Iterable[Tile]) -> Iterator[Tile]:
        """Of some tiles, those that the server does not have with the same content: what is left after a restart.

        Lists each acquisition once, when its first tile comes, and keeps that list; reads and checksums each tile.
        """
        stored: dict[int, dict[tuple[int, int, int], tuple[int, str]]] = {}
        for tile in tiles:
            if tile.acq not in stored:
                stored[tile.acq] = self._contents_by_place(tile.acq)
            size, checksum = stored[tile.acq].get((tile.col, tile.row, tile.frame), (0, ""))
            if size != tile.size or tile.checksum(checksum.partition(":")[0]) != checksum:
                yield tile

    def _contents_by_place(self, acq: int) -> dict[tuple[int, int, int], tuple[int, str]]:
        """Size and checksum of every stored tile that is not known to be damaged, by column, row and frame."""
        try:
            tiles = self.tiles(acq, frame_type="all", page=10_000)
            whole = (tile for tile in tiles if not tile.damaged)
            return {(tile.col, tile.row, tile.frame): (tile.size, tile.checksum) for tile in whole}
        except UnknownAcquisition:
            return {}

    def next_tiles(
        self, acq: int | None = None, count: int = 1, *, lease_s: int | None = None, **filters: str | int | None
    ) -> dict[str, Any]:
        """Takes up to `count` (1000) tiles of regions out of the queue, each for one caller only: IN_PROGRESS.

        `results` has an `acqid`, a `section` and a `tilespec` each, `resultType` says why there are none. With
        `lease_s` they come back when nothing is heard of them for that many seconds. `filters` are the route's
        parameters with `_` for `-`, as they are: section, sample, project, stack, oldState, newState ...
        """
        parameters = {**_parameters(filters), "acqid": acq, "ntiles": count, "lease": lease_s}
        return dict(self._http.post("/service/v1/next-tile", parameters))

    def set_state(self, state: str, tile_spec_ids: Iterable[str]) -> int:
        """Puts tiles, named by their tilespecs' `tileId`, into a state such as COMPLETE; returns how many changed."""
        change = {"state": state, "tileSpecIds": list(tile_spec_ids)}
        return int(self._http.put_json("/service/v1/tile-state", change)["nUpdates"])


def _parameters(filters: Parameters) -> dict[str, str | int | None]:
    return {name.replace("_", "-"): value for name, value in filters.items()}


def _part(name: str, file: File, content: bytes | None = None) -> tuple[str, str, bytes]:
    path = Path(file)
    return name, path.name, path.read_bytes() if content is None else content
