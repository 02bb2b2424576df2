"""One keep-alive connection to the HTTP port. Never sends a command twice by itself: only a GET is asked again, when
a connection that was kept turns out to be closed.
"""

from __future__ import annotations

import http.client
import json
import secrets
import ssl
from collections.abc import Iterable, Mapping
from typing import Any, Union
from urllib.parse import urlencode, urlsplit

from .errors import BadInput, NotFound, RequestRefused, ServerUnreachable, UnknownAcquisition, WrongProtocol

#: A part of a form: its name, the file's name, its bytes.
Part = tuple[str, str, bytes]
Parameters = Mapping[str, Union[str, int, None]]


class Http:
    """A connection. For one thread at a time."""

    def __init__(self, base: str, timeout_s: float, ssl_context: ssl.SSLContext | None = None) -> None:
        """`base` is a URL such as http://127.0.0.1:5001. Does not connect yet.

        Raises BadInput: it is none.
        """
        url = urlsplit(base)
        try:
            host, port = url.hostname or "", url.port
            if url.scheme not in ("http", "https"):
                raise ValueError(url.scheme)
            self._connection = (
                http.client.HTTPSConnection(host, port, timeout=timeout_s, context=ssl_context)
                if url.scheme == "https"
                else http.client.HTTPConnection(host, port, timeout=timeout_s)
            )
        except ValueError:
            raise BadInput(f'"{base}" is no URL like http://127.0.0.1:5001') from None
        self.base = base.rstrip("/")
        self._prefix = url.path.rstrip("/")

    def get(self, path: str, parameters: Parameters | None = None) -> bytes:
        """The body at a path."""
        return self._ask("GET", path, parameters, None, {})

    def get_json(self, path: str, parameters: Parameters | None = None) -> Any:
        """The JSON at a path."""
        return self._json(path, self.get(path, parameters))

    def post(self, path: str, parameters: Parameters | None = None, parts: Iterable[Part] = ()) -> Any:
        """Sends files, if there are any, as a form; returns the JSON of the answer."""
        boundary = f"tilecatcher-{secrets.token_hex(16)}"
        form = b"".join(_form_part(boundary, part) for part in parts)
        if not form:
            return self._json(path, self._ask("POST", path, parameters, b"", {}))
        headers = {"Content-Type": f"multipart/form-data; boundary={boundary}"}
        return self._json(path, self._ask("POST", path, parameters, form + f"--{boundary}--\r\n".encode(), headers))

    def put_json(self, path: str, body: Any) -> Any:
        """Sends JSON; returns that of the answer."""
        headers = {"Content-Type": "application/json"}
        return self._json(path, self._ask("PUT", path, None, json.dumps(body).encode(), headers))

    def close(self) -> None:
        """Closes the connection; the next request opens it again."""
        self._connection.close()

    def _ask(
        self, method: str, path: str, parameters: Parameters | None, body: bytes | None, headers: dict[str, str]
    ) -> bytes:
        given = {name: value for name, value in (parameters or {}).items() if value is not None}
        target = f"{path}?{urlencode(given)}" if given else path
        if method != "GET":
            self.close()
        try:
            try:
                status, answer = self._exchange(method, target, body, headers, self._connection.sock is not None)
            except BaseException:
                self.close()  # Half an answer may be left on it.
                raise
        except (http.client.BadStatusLine, http.client.LineTooLong, http.client.UnknownProtocol) as error:
            raise WrongProtocol(f"{self.base}: no HTTP comes back; is this the HTTP port? {error!r}") from error
        except (OSError, http.client.HTTPException) as error:
            problem = f"{self.base}{target}: {error or repr(error)}"
            raise ServerUnreachable(f"{problem}; is the daemon running, and is this its HTTP port?") from error
        if not 200 <= status < 300:
            raise _refused(f"{self.base}{target}", status, answer)
        return answer

    def _exchange(
        self, method: str, target: str, body: bytes | None, headers: dict[str, str], kept: bool
    ) -> tuple[int, bytes]:
        try:
            self._connection.request(method, self._prefix + target, body, headers)
            response = self._connection.getresponse()
        except ConnectionError:
            self.close()
            if not kept:
                raise
            return self._exchange(method, target, body, headers, kept=False)
        return response.status, response.read()

    def _json(self, path: str, body: bytes) -> Any:
        try:
            return json.loads(body)
        except ValueError as error:
            raise WrongProtocol(f"{self.base}{path}: the answer is no JSON: {error}; is this a tilecatcher?") from None


def _form_part(boundary: str, part: Part) -> bytes:
    name, file_name, content = part
    if any(odd in file_name for odd in '"\r\n\\'):
        raise BadInput(f"the file name {file_name!r} can not be sent: rename the file")
    lines = f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"; filename="{file_name}"\r\n'
    return f"{lines}Content-Type: application/octet-stream\r\n\r\n".encode() + content + b"\r\n"


def _refused(url: str, status: int, answer: bytes) -> RequestRefused:
    """The error of an answer. The server tells an unknown acquisition only in words."""
    try:
        message = _message(json.loads(answer))
    except ValueError:
        message = answer[:200].decode(errors="replace")
    if "was never started" in message or "there is no acquisition" in message:
        return UnknownAcquisition(url, status, message)
    return NotFound(url, status, message) if status == 404 else RequestRefused(url, status, message)


def _message(answer: Any) -> str:
    """What an error says, or what it says of each file that could not be stored."""
    if not isinstance(answer, dict):
        return str(answer)
    failed = [file for file in answer.get("af_results", ()) if "errormessage" in file]
    files = "; ".join(f"{file['name']}: {file['errormessage']}" for file in failed)
    return str(answer.get("errormessage") or files or answer)
