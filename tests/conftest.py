"""Fixtures that every test folder may use."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def test_data() -> Path:
    """Real CTs and DICOM objects: the folder that OSTEONODE_TEST_DATA names, outside the project."""
    named = os.environ.get("OSTEONODE_TEST_DATA", "")
    folder = Path(named)
    if named and folder.is_dir():
        return folder
    if os.environ.get("CI") == "true":
        pytest.fail("OSTEONODE_TEST_DATA must name the folder of test data", pytrace=False)
    pytest.skip("OSTEONODE_TEST_DATA names no folder: tests on real CTs need one")


@pytest.fixture(scope="session")
def dciodvfy() -> Path:
    """dicom3tools' validator; its absence fails where CI is set."""
    tool = Path("/usr/bin/dciodvfy")
    if not tool.exists():
        if os.environ.get("CI") == "true":
            pytest.fail("dciodvfy is missing", pytrace=False)
        pytest.skip("dciodvfy is missing: apt-get install dicom3tools")
    return tool
