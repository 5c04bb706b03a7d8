"""Optuna's storage: a SQLite file in the sweep's folder, or a PostgreSQL server that several machines share."""

from __future__ import annotations

import importlib
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock

from cifar_fast.utils.errors import CifarFastError

EXTRA = 'pip install "cifar_fast[sweep]"'
GRACE = 300
"""Seconds without a heartbeat after which a worker of another machine counts as dead.

Too short a time takes trials from workers that live: a paused container, a laptop that slept, a server that restarts.
"""

SQLITE = "study.db"


class StorageError(CifarFastError):
    "A storage that cannot be used; the message names it (without its password) and the next step."


def require_optuna():
    "The module optuna. Raises StorageError with the command that installs it."
    try:
        optuna = importlib.import_module("optuna")
    except ImportError:
        raise StorageError(f"a sweep needs Optuna, which is not installed: {EXTRA}") from None
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
    return optuna


def masked(url: str) -> str:
    "The address without its password."
    place, mark, query = url.partition("?")
    place = re.sub(r"(://[^:/@]*):.*@", r"\1:***@", place)  # to the last @, which a password may hold too
    return place + mark + re.sub(r"(^|&)(password=)[^&]*", r"\1\2***", query)


def open_storage(url: str | None, folder: Path, grace: float = GRACE):
    "Optuna's RDBStorage at `url`, or in `folder`. Raises StorageError."
    require_optuna()
    from optuna.exceptions import StorageInternalError
    from optuna.storages import RDBStorage
    from sqlalchemy.exc import SQLAlchemyError

    shown = str(folder / SQLITE) if url is None else masked(url) or "(nothing)"
    options = {"heartbeat_interval": max(1, int(grace / 5)), "grace_period": max(1, int(grace))}
    try:
        if url is None:
            folder.mkdir(parents=True, exist_ok=True)
            with FileLock(folder / ".storage.lock"):  # its tables are made by one process
                return RDBStorage(sqlite_url(folder / SQLITE), {"connect_args": {"timeout": 120}}, **options)
        if not url.startswith("postgresql"):
            raise StorageError(f"--storage {shown}: expected postgresql://USER@HOST/DATABASE; without --storage a "
                               f"sweep is kept in a SQLite file in its folder, for one machine")
        # psycopg 3, which the extra installs; SQLAlchemy's own choice differs by version.
        engine = {"pool_pre_ping": True, "connect_args": {"connect_timeout": 10}}
        return RDBStorage(re.sub(r"^postgresql://", "postgresql+psycopg://", url), engine, **options)
    except ImportError:
        raise StorageError(f"--storage {shown} needs a driver that is not installed: {EXTRA}") from None
    except (SQLAlchemyError, StorageInternalError, ValueError) as e:
        cause = e.__cause__ or e
        why = " ".join(str(getattr(cause, "orig", None) or cause).split())
        step = "check host, port, database and user, and that the server runs" if url else "move the file away"
        if url and url.partition("?")[0].count("@") > 1:  # the cause may then hold a part of the password
            why, step = "its address holds more than one @", "write an @ of the user or password as %40"
        raise StorageError(f"the storage {shown} cannot be used ({why[:200]}): {step}") from None


def sqlite_url(path: Path) -> str:
    "For any path: Optuna fills in {…} and SQLAlchemy decodes %…"
    from urllib.parse import quote

    return f"sqlite:///{quote(str(path.absolute()), safe='/ ')}"


@contextmanager
def one_at_a_time(storage: Any, folder: Path, name: str) -> Iterator[None]:
    """Only one worker of a sweep, of all machines, is in this block: it looks at all trials and claims one.

    A process that dies in it lets the next one in: the system frees a file's lock, PostgreSQL that of a connection.
    """
    if storage.engine.dialect.name == "sqlite":
        with FileLock(folder / ".claim.lock"):
            yield
        return
    from sqlalchemy import text

    with storage.engine.begin() as connection:
        connection.execute(text("SELECT pg_advisory_xact_lock(hashtext(:name))"), {"name": f"cifar_fast {name}"})
        yield
