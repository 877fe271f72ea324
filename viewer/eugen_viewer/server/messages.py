"""Messages that a browser's page sends to the viewer: which there are, and which values they may have."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import msgspec

MAX_TEXT = 4096
"""Characters of a text field."""
ASPECTS = (0.05, 20.0)
"""Width of a window by its height, smallest and largest."""
MAX_DISTANCE = 1e9
"""Of a camera from the origin, along each axis."""

_Three = tuple[float, float, float]


class MalformedMessageError(ValueError):
    """A message that no browser sends; its connection is closed."""


class UnusableMessageError(ValueError):
    """A message with a value that the viewer has no use for; it is left out."""


class CameraReport(msgspec.Struct, tag_field="type", tag="ViewerCameraMessage", forbid_unknown_fields=True):
    """Where a tab's camera is, in the browser's units."""

    wxyz: tuple[float, float, float, float]
    position: _Three
    fov: float
    aspect: float
    look_at: _Three
    up_direction: _Three


class ControlUpdate(msgspec.Struct, tag_field="type", tag="GuiUpdateMessage", forbid_unknown_fields=True):
    """The new value of a control."""

    id: str
    updates: dict[str, Any]


class Click(msgspec.Struct, tag_field="type", tag="ScenePointerMessage", forbid_unknown_fields=True):
    """A click into the scene."""

    event_type: Literal["click"]
    ray_origin: _Three
    ray_direction: _Three
    screen_pos: tuple[tuple[float, float]]


class DownloadProgress(msgspec.Struct, tag_field="type", tag="FileTransferPartAck", forbid_unknown_fields=True):
    """How much of a file has arrived."""

    source_component_id: str | None
    transfer_uuid: str
    transferred_bytes: int
    total_bytes: int


class Publication(msgspec.Struct, tag_field="type", tag="ShareUrlRequest", forbid_unknown_fields=True):
    """The button that would publish the viewer; it is answered with a refusal."""


PageMessage = CameraReport | ControlUpdate | Click | DownloadProgress | Publication
"""All that a page of the viewer sends. viser knows more: uploads, screenshots of the browser, dragged objects."""
_decoder: msgspec.msgpack.Decoder[PageMessage] = msgspec.msgpack.Decoder(PageMessage)


@dataclass(frozen=True)
class Control:
    """A control of the page: its value, and what it may be where that is limited."""

    value: Any
    low: float | None = None
    high: float | None = None
    options: tuple[str, ...] | None = None
    button: bool = False


FindControl = Callable[[str], Control | None]
"""A control by its identifier; None where it is gone."""


def check_message(raw: bytes, find_control: FindControl) -> PageMessage:
    """Reads a message, and raises for one that viser should not see.

    Args:
        raw: as it came.
        find_control: finds the controls of the page.

    Raises:
        MalformedMessageError: not a message of a page.
        UnusableMessageError: of a control that is gone, or a value out of its range.
    """
    try:
        message = _decoder.decode(raw)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise MalformedMessageError("not a message of this page") from error
    if isinstance(message, CameraReport):
        _check_camera(message)
    elif isinstance(message, ControlUpdate):
        _check_update(message, find_control)
    elif isinstance(message, Click):
        _check_finite(*message.ray_origin, *message.ray_direction, *message.screen_pos[0])
        if not any(message.ray_direction) or max(map(abs, message.ray_origin)) > MAX_DISTANCE:
            raise UnusableMessageError("nothing can be there")
    return message


def _check_camera(message: CameraReport) -> None:
    vectors = (message.position, message.look_at, message.up_direction)
    _check_finite(*message.wxyz, message.fov, message.aspect, *(number for each in vectors for number in each))
    if max(abs(number) for each in (message.wxyz, *vectors) for number in each) > MAX_DISTANCE:
        raise UnusableMessageError("the camera is too far away")
    length = math.hypot(*message.wxyz)
    if length < 1e-9 or not 0 < message.fov < math.pi or not ASPECTS[0] <= message.aspect <= ASPECTS[1]:
        raise UnusableMessageError("no camera looks so")


def _check_finite(*numbers: float) -> None:
    if not all(map(math.isfinite, numbers)):
        raise MalformedMessageError("numbers must be finite")


def _check_update(message: ControlUpdate, find_control: FindControl) -> None:
    if set(message.updates) != {"value"}:
        raise MalformedMessageError("only the value of a control can be changed")
    control = find_control(message.id)
    if control is None:
        raise UnusableMessageError("no such control")
    value = message.updates["value"]
    _check_value(tuple(value) if isinstance(value, list) else value, control)


def _check_value(value: Any, control: Control) -> None:
    """Whether a value is one that a control can have: of the type of its present one, within its range or options."""
    present = control.value
    if isinstance(present, bool):
        good = isinstance(value, bool)
    elif isinstance(present, int | float):
        good = _is_number(value)
    elif isinstance(present, str):
        good = isinstance(value, str)
    elif isinstance(present, tuple):
        good = isinstance(value, tuple) and len(value) == len(present) and all(map(_is_number, value))
    else:
        good = False
    if not good:
        raise MalformedMessageError("a value of another type than its control's")
    if isinstance(value, str):
        if len(value) > MAX_TEXT or not value.isprintable():
            raise UnusableMessageError("too long a text, or one with control characters")
        if control.options is not None and value not in control.options:
            raise UnusableMessageError("not one of the options")
    else:
        low, high = (math.inf * sign if end is None else end for end, sign in ((control.low, -1), (control.high, 1)))
        if not all(low <= number <= high for number in (value if isinstance(value, tuple) else (value,))):
            raise UnusableMessageError("out of the control's range")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
