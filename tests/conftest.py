"""Fixtures that every test folder may use."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def test_data() -> Path:
    """The folder of real CTs and DICOM objects, named by OSTEONODE_TEST_DATA. It is not part of the project."""
    named = os.environ.get("OSTEONODE_TEST_DATA", "")
    folder = Path(named)
    if named and folder.is_dir():
        return folder
    if os.environ.get("CI") == "true":
        pytest.fail("OSTEONODE_TEST_DATA must name the folder of test data", pytrace=False)
    pytest.skip("OSTEONODE_TEST_DATA names no folder: tests on real CTs need one")
