"""The embedded engine."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import duckdb
import pyarrow
import pyiceberg
from obstore.exceptions import BaseError

from airflow_provider_floe import __version__
from airflow_provider_floe.engines.base import OperationContext, OperationRequest, OperationResult
from airflow_provider_floe.engines.capabilities import Capabilities
from airflow_provider_floe.engines.local import expire, orphans, rewrite_data, rewrite_deletes, rewrite_manifests
from airflow_provider_floe.engines.local.capabilities import local_capabilities
from airflow_provider_floe.engines.local.pyiceberg_self_test import self_test
from airflow_provider_floe.engines.sharing import GroupBoard
from airflow_provider_floe.errors import StorageUnavailable, UnsupportedSetting
from airflow_provider_floe.tables import Operation

log = logging.getLogger(__name__)

_OPERATIONS: dict[Operation, Callable[[OperationRequest, OperationContext, int], OperationResult]] = {
    Operation.REWRITE_DATA_FILES: rewrite_data.run,
    Operation.REWRITE_POSITION_DELETE_FILES: rewrite_deletes.run,
    Operation.REWRITE_MANIFESTS: rewrite_manifests.run,
    Operation.EXPIRE_SNAPSHOTS: expire.run,
    Operation.REMOVE_ORPHAN_FILES: orphans.run,
}


class LocalEngine:
    """Carries out operations in this process; no JVM, no server.

    :param memory_limit_bytes: what buffers and DuckDB keep to.
    """

    name = "local"

    def __init__(self, memory_limit_bytes: int) -> None:
        self._memory_limit_bytes = memory_limit_bytes
        self._capabilities: Capabilities | None = None

    def probe(self) -> Capabilities:
        """Test once that the libraries which are installed behave as needed.

        :raises ConfigurationError: naming the library and the version that do not.
        """
        if self._capabilities is None:
            self_test()
            self._capabilities = local_capabilities(
                f"{__version__} (pyiceberg {pyiceberg.__version__}, pyarrow {pyarrow.__version__}, "
                f"duckdb {duckdb.__version__})"
            )
        return self._capabilities

    def execute(self, request: OperationRequest, context: OperationContext) -> OperationResult:
        """Run one operation to its end; see :class:`~airflow_provider_floe.engines.base.Engine`."""
        with self._ready(request):
            result = _OPERATIONS[request.operation](request, context, self._memory_limit_bytes)
        log.info("%s on %s: %s", request.operation, request.table, result.message)
        return result

    def execute_shared(
        self, request: OperationRequest, context: OperationContext, board: GroupBoard
    ) -> OperationResult:
        """See :class:`~airflow_provider_floe.engines.sharing.SharingEngine`."""
        with self._ready(request):
            result = rewrite_data.run(request, context, self._memory_limit_bytes, board)
        log.info("%s on %s: %s", request.operation, request.table, result.message)
        return result

    def help(self, request: OperationRequest, context: OperationContext, board: GroupBoard) -> int:
        """See :class:`~airflow_provider_floe.engines.sharing.SharingEngine`."""
        with self._ready(request):
            return rewrite_data.help_write(request, context, self._memory_limit_bytes, board)

    @contextmanager
    def _ready(self, request: OperationRequest) -> Iterator[None]:
        capability = self.probe().operation(request.operation)
        if not capability.supported:
            raise UnsupportedSetting(f"{request.table}: {capability.reason}")
        try:
            yield
        except (OSError, BaseError) as error:
            raise StorageUnavailable(
                f"{request.operation} on {request.table} stopped, storage failed: {str(error).splitlines()[0]} "
                "What was committed or deleted before stands in the operation's record; run again when storage answers"
            ) from error
