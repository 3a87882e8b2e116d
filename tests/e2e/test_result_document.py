"""Studies measured again give the `result.json` that an earlier version wrote for them, key by key."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.e2e.result_studies import KEPT, STUDIES

# Words may be put better, and who made the numbers changes with every version.
_FREE = frozenset({"text", "reason", "reasons", "version", "packages", "configuration_sha256"})


def leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Every value with the keys that lead to it, in order."""
    if isinstance(value, dict):
        for key, one in value.items():
            if key not in _FREE:
                yield from leaves(one, f"{path}.{key}")
            else:
                yield f"{path}.{key}", type(one)
    elif isinstance(value, list):
        for place, one in enumerate(value):
            yield from leaves(one, f"{path}[{place}]")
        yield f"{path}.length", len(value)
    else:
        yield path, value


@pytest.mark.parametrize("study", STUDIES)
def test_a_study_measured_again_gives_the_result_that_was_kept(study, tmp_path):
    before = json.loads((KEPT / study / "result.json").read_bytes()) | {"timings_s": {}}
    now = STUDIES[study](tmp_path).result
    assert [path for path, _ in leaves(now)] == [path for path, _ in leaves(before)]
    for (path, value), (_, known) in zip(leaves(now), leaves(before), strict=True):
        expected = pytest.approx(known, rel=1e-9) if isinstance(known, float) else known
        assert type(value) is type(known), path
        assert value == expected, path
