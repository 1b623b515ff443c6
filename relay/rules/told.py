"""What a caller is told who was refused. Pure."""

from __future__ import annotations

#: What the caller is told; why exactly is in the request log.
TOLD = {
    400: "the body is not what this endpoint takes",
    401: "not authorized",
    403: "not from this address",
    408: "the body did not arrive whole",
    411: "send a Content-Length",
    413: "the body is too long",
    415: "this content type or encoding is not taken here",
    429: "too many requests",
    503: "cannot be stored now; send it again",
}
