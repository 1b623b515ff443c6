"""What the file may say of the engine that runs the deliveries."""

from __future__ import annotations

import importlib.util
import urllib.parse
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    Field,
    GetJsonSchemaHandler,
    SecretStr,
    model_validator,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from relay.config.settings import Settings

#: What brokers there are, and the packages that they need beside Celery itself.
BROKERS = {"amqp": (), "amqps": (), "redis": ("redis",), "rediss": ("redis",)}

_SAY = "write threads, or {celery: {broker: amqp://user@host}}"


def _broker(value: SecretStr) -> SecretStr:
    try:
        parts = urllib.parse.urlsplit(value.get_secret_value())
        named, scheme = bool(parts.hostname and parts.port != 0), parts.scheme
    except ValueError:
        named, scheme = False, ""
    if not named or scheme not in BROKERS:
        raise ValueError("write amqp://user@host/vhost or redis://host/0")
    for package in ("celery", *BROKERS[scheme]):
        if importlib.util.find_spec(package) is None:
            raise ValueError(
                f'celery needs the package {package}: pip install "gofax-relay[celery]"'
            )
    return value


class Celery(Settings):
    """A fleet of Celery workers."""

    broker: Annotated[SecretStr, AfterValidator(_broker)] = Field(
        description="URL of RabbitMQ (amqp, amqps) or Redis (redis, rediss), through which the "
        "workers are told that there is work"
    )


class Engine(Settings):
    """What runs the deliveries: threads of the worker process, if nothing else."""

    celery: Celery | None = None

    @model_validator(mode="before")
    @classmethod
    def _by_name(cls, given: Any) -> Any:
        if given == "threads":
            return {}
        if isinstance(given, cls) or isinstance(given, dict) and given.get("celery") is not None:
            return given
        raise ValueError(_SAY)

    @classmethod
    def __get_pydantic_json_schema__(
        cls, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        fleet = handler.resolve_ref_schema(handler(schema))
        (celery, _) = fleet["properties"]["celery"]["anyOf"]
        fleet |= {"properties": {"celery": celery}, "required": ["celery"]}
        return {"anyOf": [{"type": "string", "enum": ["threads"]}, fleet]}


THREADS = Engine.model_validate("threads")
