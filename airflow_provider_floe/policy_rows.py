"""Policies that stand as rows in the Floe store, and the cache that lets DAG files be parsed without fetching them."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import stat
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, urlsplit

from airflow_provider_floe import config
from airflow_provider_floe.errors import FloeError

if TYPE_CHECKING:
    from airflow_provider_floe.stores.protocols import FloeStore

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class PolicyRows:
    """Rows as a DAG file is parsed with.

    :ivar documents: JSON text by name.
    :ivar problem: why the store could not be read; the documents are then those of the last time.
    """

    documents: Mapping[str, str] = field(default_factory=dict)
    problem: str | None = None


def read_rows() -> Mapping[str, str]:
    """JSON documents by name, from the store itself; none with ``[floe] policies_in_store = False``.

    :raises ConfigurationError: when the store's configuration is wrong.
    :raises StoreUnavailable: when it does not answer.
    """
    if not config.policies_in_store():
        return {}
    with floe_store() as store:
        return store.policy_documents()


def rows_for_parsing() -> PolicyRows:
    """The rows at the cost of one query, for the revision, while they do not change. Raises nothing about the store."""
    if not config.policies_in_store():
        return PolicyRows()
    cache = _Cache.of_this_deployment()
    try:
        with floe_store() as store:
            store_id, revision = _store_id(), store.policy_revision()
            if (cache.store_id, cache.revision) == (store_id, revision):
                return PolicyRows(cache.documents)
            # the revision is read first: a change in between is fetched again at the next parse
            documents = store.policy_documents()
    except FloeError as error:
        used = f"the {len(cache.documents)} policies read last are used" if cache.store_id else "none was read before"
        return PolicyRows(cache.documents, f"policies in the Floe store could not be read, {used}: {error}")
    _Cache(store_id, revision, documents).write()
    return PolicyRows(documents)


@contextmanager
def floe_store() -> Iterator[FloeStore]:
    """The deployment's store for one look, closed after it.

    :raises FloeError: when it cannot be opened.
    """
    from airflow_provider_floe.airflow_environment import open_floe_store

    store = open_floe_store()
    try:
        yield store
    finally:
        store.close()


@dataclass(frozen=True)
class _Cache:
    """Rows as read last.

    :ivar store_id: which store; empty when nothing was read before.
    """

    store_id: str = ""
    revision: int = -1
    documents: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of_this_deployment(cls) -> _Cache:
        """The one in the first folder that has one; an unreadable one counts as none."""
        for folder in _folders():
            with suppress(OSError, ValueError, KeyError, TypeError, AttributeError):
                found = json.loads((folder / _file_name()).read_text(encoding="utf-8"))
                documents = {str(name): str(document) for name, document in found["documents"].items()}
                return cls(str(found["store"]), int(found["revision"]), documents)
        return cls()

    def write(self) -> None:
        """Into the first folder that can be written; without one, rows are fetched at every parse."""
        text = json.dumps({"store": self.store_id, "revision": self.revision, "documents": dict(self.documents)})
        for folder in _folders():
            try:
                _write_atomically(folder / _file_name(), text)
            except OSError as error:
                log.debug("no policy cache in %s: %s", folder, error)
            else:
                return
        log.warning("policies of the Floe store cannot be cached: neither Airflow's home nor the temporary folder can")


def _folders() -> Iterator[Path]:
    """Airflow's home, else a folder of this user only: what stands in the cache becomes DAGs."""
    yield config.airflow_home()
    private = Path(tempfile.gettempdir()) / f"floe-{os.getuid()}"
    with suppress(OSError):
        private.mkdir(mode=0o700, exist_ok=True)
        found = private.lstat()
        if stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and not found.st_mode & 0o022:
            yield private


def _file_name() -> str:
    """One for each configured store, known also while the connection cannot be looked up."""
    configured = config.option("store_conn_id") or _without_secrets(config.option("store_url") or "")
    return f"floe_policies_{hashlib.sha256(configured.encode()).hexdigest()[:12]}.json"


def _store_id() -> str:
    """Which database it is: a connection may be changed to lead to another one."""
    from airflow_provider_floe.airflow_environment import store_url

    return hashlib.sha256(_without_secrets(store_url()).encode()).hexdigest()


def _without_secrets(url: str) -> str:
    parts = urlsplit(url)
    user, at, place = parts.netloc.rpartition("@")
    query = [(key, value) for key, value in parse_qsl(parts.query) if "pass" not in key.lower()]
    return f"{parts.scheme}://{user.partition(':')[0]}{at}{place}{parts.path}?{query}"


def _write_atomically(path: Path, text: str) -> None:
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        os.replace(name, path)
    except OSError:
        with suppress(OSError):
            os.unlink(name)
        raise
