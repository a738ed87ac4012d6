from __future__ import annotations

from urllib.parse import quote

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from airflow_provider_floe.iceberg.paths import (
    Overlap,
    PathRules,
    is_excluded,
    is_hidden,
    is_metadata_pointer,
    normalise,
    overlap,
    path_key,
    path_keys,
    same_store,
)

_PARTS = st.text(st.characters(codec="utf-8", exclude_characters="/%", exclude_categories=("Cc", "Cs")), min_size=1)
_SEGMENTS = st.lists(_PARTS.filter(lambda part: part not in (".", "..")), min_size=1, max_size=5)


@given(_SEGMENTS)
def test_spellings_of_one_file_are_equal(segments: list[str]) -> None:
    path = "/".join(segments)
    encoded = "/".join(quote(part) for part in segments)
    spellings = [
        f"s3://bucket/{path}",
        f"s3a://bucket/{path}",
        f"s3n://Bucket/{path}/",
        f"s3://bucket//{path}",
        f"s3://bucket/./{path}",
        f"s3://bucket/x/../{path}",
        f"s3://bucket/{encoded}",
        f"s3://bucket/{quote(encoded)}",
    ]
    assert len({normalise(spelling) for spelling in spellings}) == 1


@given(_SEGMENTS)
def test_local_spellings_are_one_file(segments: list[str]) -> None:
    path = "/" + "/".join(segments)
    spellings = [normalise(text) for text in (path, f"file:{path}", f"file://{path}", f"file://localhost{path}")]
    assert len({spelling.path for spelling in spellings}) == 1
    assert all(same_store(one, other) for one in spellings for other in spellings)


@given(st.text(max_size=60))
@example(".")
@example("..")
@example("./a/../b")
def test_normalising_twice_changes_nothing(text: str) -> None:
    once = path_key(text)
    assert path_key(once) == once
    assert normalise(text).path == once


@given(
    st.lists(
        st.builds(
            str.__add__,
            st.sampled_from(["", "s3://b", "s3://b", "s3://b", "s3a://b", "s3://bb", "file:", "file://", "c:"]),
            st.one_of(
                st.text("ab.%/\n2F:", max_size=8),
                st.lists(st.text("ab", min_size=1, max_size=2)).map(lambda parts: "/" + "/".join(parts)),
            ),
        ),
        max_size=5,
    )
)
@example(["s3://b/one", "s3://b/two"])
@example(["s3://b/one\ns3://b/two", "four"])
def test_many_paths_have_the_keys_that_each_has(paths: list[str]) -> None:
    assert path_keys(paths) == [path_key(path) for path in paths]


@given(_SEGMENTS, _SEGMENTS)
def test_overlap_goes_by_components(root: list[str], below: list[str]) -> None:
    ours = normalise("s3://b/" + "/".join(root))
    inside = normalise("s3a://b/" + "/".join([*root, *below]))
    beside = normalise("s3://b/" + "/".join(root) + "-and-more")
    assert overlap(ours, ours) is Overlap.EQUAL
    assert overlap(ours, inside) is Overlap.CONTAINS
    assert overlap(inside, ours) is Overlap.INSIDE
    assert overlap(ours, beside) is None
    assert overlap(ours, normalise("s3://other/" + "/".join(root))) is None


def test_other_buckets_and_schemes_differ_unless_declared_equal() -> None:
    ours, theirs = "s3://one/t/f", "oss://two/t/f"
    assert not same_store(normalise(ours), normalise(theirs))
    rules = PathRules.of({"oss,cos": "s3"}, {"two": "one"})
    assert same_store(normalise(ours, rules), normalise(theirs, rules))
    assert same_store(normalise("/t/f"), normalise(ours))


@pytest.mark.parametrize(
    ("relative", "hidden"),
    [
        ("data/f.parquet", False),
        ("data/_day=1/f.parquet", False),
        ("_floe_quarantine/op/f.parquet", True),
        ("data/.f.parquet.crc", True),
        ("data/_SUCCESS", True),
    ],
)
def test_hidden_names(relative: str, hidden: bool) -> None:
    assert is_hidden(relative) is hidden


@pytest.mark.parametrize(
    ("relative", "pattern", "excluded"),
    [
        ("checkpoints/7/state", "checkpoints", True),
        ("checkpoints/7/state", "checkpoints/**", True),
        ("checkpoints/7/state", "/checkpoints/", True),
        ("data/checkpoints/7/state", "**/checkpoints/**", True),
        ("data/checkpoints/7/state", "**/checkpoints", True),
        ("data/a/f.tmp", "*.tmp", True),
        ("data/a/f.tmp", "data/*.tmp", True),
        ("data/f.parquet", "*.tmp", False),
        ("data/checkpoints-old", "checkpoints", False),
    ],
)
def test_exclude_patterns(relative: str, pattern: str, excluded: bool) -> None:
    assert is_excluded(relative, (pattern,)) is excluded


@given(st.integers(0, 99999), st.uuids(), st.sampled_from([".metadata.json", ".gz.metadata.json", ".metadata.json.gz"]))
def test_metadata_files_are_recognised(version: int, name: object, ending: str) -> None:
    assert is_metadata_pointer(f"s3://b/t/metadata/{version:05d}-{name}{ending}")


def test_version_hint_is_recognised_and_data_is_not() -> None:
    assert is_metadata_pointer("/t/metadata/version-hint.text")
    assert not is_metadata_pointer("/t/metadata/snap-1.avro")
