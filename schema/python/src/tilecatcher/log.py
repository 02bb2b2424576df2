"""Acquisition logs for those who have no microscope to write one."""

from __future__ import annotations

from datetime import datetime, timezone

from .errors import BadInput


def minimal_log(
    cols: int,
    rows: int,
    *,
    cameras: int = 1,
    pix_per_um: float = 1.0,
    acquired: datetime | None = None,
    sample: str = "",
    project: str = "",
    owner: str = "",
    stack: str = "",
) -> str:
    """The least log that starts an acquisition of `cols x rows` tiles; `acquired` counts as UTC, now when it is None.

    Raises BadInput: not 1 or 4 cameras, an odd grid for 4, or a text that would break its line.
    """
    if cameras not in (1, 4) or min(cols, rows) < 1 or (cameras == 4 and (cols % 2 or rows % 2)):
        raise BadInput(f"{cols} x {rows} tiles of {cameras} cameras: 1 camera, or 4 and an even number each way")
    if any(odd in text for text in (sample, project, owner, stack) for odd in '"\r\n;'):
        raise BadInput("quotes, semicolons and line ends can not stand in a log")
    moment = acquired or datetime.now(timezone.utc)
    steps = 1 if cameras == 1 else 2
    connected = "\n".join(f"Acq{n} = {'TRUE' if n <= cameras else 'FALSE'}" for n in range(1, 5))
    return f"""[General]
Date = "{moment:%m/%d/%Y %I:%M:%S %p}"
Sample name = "{sample}"
[Camera Connections]
{connected}
[Mosaic Settings]
Number of X steps = {cols // steps}
Number of Y steps = {rows // steps}
[TEM Settings]
Pixels per um = "{pix_per_um}"
[ImageCatcher]
project = {project}
owner = {owner}
stack = {stack}
"""
