"""Paths of files, brought to a form in which two spellings of one file are equal.

Iceberg stores paths as text, and writers spell one file in several ways: ``s3``, ``s3a`` and ``s3n``, with or without
an authority, percent-encoded or not. Comparison here is generous on purpose: a file that might be referenced is kept.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from fnmatch import fnmatchcase
from urllib.parse import unquote

_URI = re.compile(r"^([A-Za-z][A-Za-z0-9+.\-]*)://([^/]*)(.*)$", re.DOTALL)
_OPAQUE = re.compile(r"^([A-Za-z][A-Za-z0-9+.\-]+):(/.*)$", re.DOTALL)
_UNUSUAL = re.compile(r"%|//|(?:^|/)\.")
_NOT_PLAIN = re.compile(r"%|//|/\.|/(?=\n|\Z)|\n(?!/)")
_STORE = re.compile(r"(?:[A-Za-z][A-Za-z0-9+.\-]*://[^/]*|[A-Za-z][A-Za-z0-9+.\-]+:(?=/))?")

_SCHEMES = {"s3a": "s3", "s3n": "s3", "abfss": "abfs", "wasbs": "wasb", "gcs": "gs"}


class Overlap(StrEnum):
    """How one location lies to another."""

    EQUAL = "equals"
    CONTAINS = "contains"
    INSIDE = "lies inside"


@dataclass(frozen=True, slots=True)
class StoragePath:
    """A path taken apart and normalised.

    :ivar scheme: lower case; empty for a plain path.
    :ivar authority: bucket, container or host; empty for local files.
    :ivar path: decoded, absolute, without ``.``, ``..``, empty parts or a trailing slash; ``/`` is the root.
    """

    scheme: str
    authority: str
    path: str


@dataclass(frozen=True)
class PathRules:
    """What else is equal, by a policy's ``equalSchemes`` and ``equalAuthorities``.

    A key may name several, separated by commas, as in Spark's procedure: ``{"s3n,s3a": "s3"}``.
    """

    schemes: Mapping[str, str] = field(default_factory=dict)
    authorities: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, equal_schemes: Mapping[str, str], equal_authorities: Mapping[str, str]) -> PathRules:
        """From a policy's maps."""
        return cls({**_SCHEMES, **_flat(equal_schemes)}, _flat(equal_authorities))


def _flat(equal: Mapping[str, str]) -> dict[str, str]:
    return {
        name.strip().lower(): target.strip().lower() for names, target in equal.items() for name in names.split(",")
    }


DEFAULT_RULES = PathRules(_SCHEMES)


def normalise(text: str, rules: PathRules = DEFAULT_RULES) -> StoragePath:
    """Take a path apart; all spellings of one file give equal results."""
    scheme, authority, path = split(text)
    scheme = rules.schemes.get(scheme, scheme)
    authority = authority.lower()
    if scheme == "file" and authority == "localhost":
        authority = ""
    return StoragePath(scheme, rules.authorities.get(authority, authority), _clean(path))


def split(text: str) -> tuple[str, str, str]:
    """Scheme (lower case), authority and path as they are written; nothing is decoded."""
    if match := _URI.match(text):
        return match[1].lower(), match[2], match[3]
    if match := _OPAQUE.match(text):
        return match[1].lower(), "", match[2]
    return "", "", text


def path_key(text: str) -> str:
    """The normalised path without scheme and authority: what files are joined by."""
    if (match := _URI.match(text)) or (match := _OPAQUE.match(text)):
        text = match[match.lastindex or 0]
    return _clean(text)


def store_of(text: str) -> str:
    """Scheme and authority as they are written at the beginning of a path, with what parts them from the rest."""
    return _STORE.match(text)[0]  # type: ignore[index]


def path_keys(paths: Sequence[str]) -> list[str]:
    """:func:`path_key` of many paths, much faster when they lie in one store and are normalised as they are."""
    if not paths:
        return []
    store = store_of(paths[0])
    lines = "\n" + "\n".join(paths)
    rest = lines.replace("\n" + store, "\n")
    in_one_store = len(lines) - len(rest) == len(store) * len(paths)
    if in_one_store and rest.count("\n") == len(paths) and not _NOT_PLAIN.search(rest):
        return rest[1:].split("\n")
    return [path_key(path) for path in paths]


def _clean(path: str) -> str:
    if _UNUSUAL.search(path):
        # decoding ends when nothing changes: a path may have been encoded more than once on its way
        while "%" in path and (decoded := unquote(path)) != path:
            path = decoded
        parts: list[str] = []
        for part in path.split("/"):
            if part == "..":
                del parts[-1:]
            elif part not in ("", "."):
                parts.append(part)
        return "/" + "/".join(parts)
    return "/" + path.strip("/")


def same_store(one: StoragePath, other: StoragePath) -> bool:
    """Whether scheme and authority agree; one that is left out agrees with any."""
    return _agree(one.scheme, other.scheme) and _agree(one.authority, other.authority)


def _agree(one: str, other: str) -> bool:
    return not one or not other or one == other


def overlap(ours: StoragePath, theirs: StoragePath) -> Overlap | None:
    """How our location lies to theirs, component by component; None when they are apart."""
    if not same_store(ours, theirs):
        return None
    if ours.path == theirs.path:
        return Overlap.EQUAL
    if is_under(theirs.path, ours.path):
        return Overlap.CONTAINS
    return Overlap.INSIDE if is_under(ours.path, theirs.path) else None


def is_under(path: str, root: str) -> bool:
    """Whether a normalised path lies below another."""
    return path.startswith(root if root == "/" else root + "/") and path != root


def relative_to(path: str, root: str) -> str:
    """The part of a normalised path below a normalised root that contains it."""
    return path[len(root) :].lstrip("/")


def is_hidden(relative: str) -> bool:
    """Whether a part begins with ``_`` or ``.``, which engines leave alone; partition folders (``_day=1``) are not."""
    return any(part[:1] in ("_", ".") and "=" not in part for part in relative.split("/"))


def is_excluded(relative: str, patterns: tuple[str, ...]) -> bool:
    """Whether a glob matches the relative path, a folder above it or, for a glob without slash, any part of it.

    ``*`` also crosses slashes, so that a glob rather keeps too much.
    """
    if not patterns:
        return False
    parts = relative.split("/")
    folders = [posixpath.join(*parts[:end]) for end in range(1, len(parts) + 1)]
    for pattern in patterns:
        wanted = pattern.strip("/").removeprefix("**/").removesuffix("/**")
        candidates = folders if "/" in wanted else [*folders, *parts]
        if any(fnmatchcase(text, form) for text in candidates for form in (wanted, pattern.strip("/"))):
            return True
        if pattern.startswith("**/") and any(fnmatchcase(text, "*/" + wanted) for text in folders):
            return True
    return False


def is_metadata_pointer(path: str) -> bool:
    """Whether the file is a table metadata file or Hadoop's version hint, which are never removed (promise 4)."""
    name = path.rsplit("/", 1)[-1]
    return name.endswith((".metadata.json", ".metadata.json.gz")) or name.startswith("version-hint")
