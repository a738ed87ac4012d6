"""Object stores for bulk work, opened with the properties of a table's FileIO."""

from __future__ import annotations

import os
from datetime import timedelta
from functools import lru_cache
from typing import Any

from obstore.store import S3Store
from pyiceberg.io import (
    AWS_ACCESS_KEY_ID,
    AWS_PROFILE_NAME,
    AWS_REGION,
    AWS_ROLE_ARN,
    AWS_SECRET_ACCESS_KEY,
    AWS_SESSION_TOKEN,
    S3_ACCESS_KEY_ID,
    S3_ANONYMOUS,
    S3_CONNECT_TIMEOUT,
    S3_ENDPOINT,
    S3_FORCE_VIRTUAL_ADDRESSING,
    S3_PROFILE_NAME,
    S3_PROXY_URI,
    S3_REGION,
    S3_REQUEST_TIMEOUT,
    S3_ROLE_ARN,
    S3_SECRET_ACCESS_KEY,
    S3_SESSION_TOKEN,
    S3_SIGNER,
    FileIO,
)
from pyiceberg.typedef import Properties

from airflow_provider_floe.iceberg.paths import split

RETRY = timedelta(minutes=3)
"""For so long requests are repeated that a busy or broken store did not answer."""

_UNMAPPED = (S3_ROLE_ARN, AWS_ROLE_ARN, S3_PROFILE_NAME, AWS_PROFILE_NAME, S3_SIGNER)
"""Ways to authenticate that only the FileIO itself knows."""


def s3_store(io: FileIO, path: str) -> tuple[S3Store, str] | None:
    """The bucket of an S3 path, and the key in it.

    :returns: None when the path is not on S3, or the FileIO's credentials cannot be handed over; then the file system
        of the FileIO does the work.
    """
    scheme, bucket, key = split(path)
    if scheme not in ("s3", "s3a", "s3n"):
        return None
    settings = _settings(io.properties)
    if settings is None:
        return None
    return _open(bucket, tuple(sorted(settings.items()))), key.lstrip("/")


@lru_cache(maxsize=32)
def _open(bucket: str, settings: tuple[tuple[str, Any], ...]) -> S3Store:
    options: dict[str, Any] = dict(settings)
    client: dict[str, Any] = {"allow_http": str(options.get("endpoint", "")).startswith("http://")}
    for name in ("proxy_url", "timeout", "connect_timeout"):
        if name in options:
            client[name] = options.pop(name)
    return S3Store(bucket, client_options=client, retry_config={"retry_timeout": RETRY}, **options)  # type: ignore[arg-type]


def _settings(properties: Properties) -> dict[str, Any] | None:
    if any(properties.get(name) for name in _UNMAPPED):
        return None
    key = properties.get(S3_ACCESS_KEY_ID) or properties.get(AWS_ACCESS_KEY_ID)
    anonymous = _true(properties.get(S3_ANONYMOUS))
    if not key and not anonymous and not os.environ.get("AWS_ACCESS_KEY_ID"):
        return None  # the chain of a profile or an instance is the FileIO's business
    endpoint = properties.get(S3_ENDPOINT) or os.environ.get("AWS_ENDPOINT_URL")
    region = properties.get(S3_REGION) or properties.get(AWS_REGION) or os.environ.get("AWS_REGION")
    if not region and not endpoint:
        return None  # the FileIO finds out the bucket's region
    found: dict[str, Any] = {
        "access_key_id": key,
        "secret_access_key": properties.get(S3_SECRET_ACCESS_KEY) or properties.get(AWS_SECRET_ACCESS_KEY),
        "session_token": properties.get(S3_SESSION_TOKEN) or properties.get(AWS_SESSION_TOKEN),
        "region": region or "us-east-1",
        "endpoint": endpoint if not endpoint or "://" in endpoint else f"https://{endpoint}",
        "skip_signature": anonymous or None,
        "virtual_hosted_style_request": _virtual_hosted(properties) or None,
        "proxy_url": properties.get(S3_PROXY_URI),
        "timeout": _seconds(properties.get(S3_REQUEST_TIMEOUT)),
        "connect_timeout": _seconds(properties.get(S3_CONNECT_TIMEOUT)),
    }
    return {name: value for name, value in found.items() if value is not None}


def _virtual_hosted(properties: Properties) -> bool:
    if _true(properties.get("s3.path-style-access")):
        return False
    return _true(properties.get(S3_FORCE_VIRTUAL_ADDRESSING))


def _seconds(value: Any) -> timedelta | None:
    return None if value in (None, "") else timedelta(seconds=float(value))


def _true(value: Any) -> bool:
    return str(value).lower() in ("true", "1", "yes")
