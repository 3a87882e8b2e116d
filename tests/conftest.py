"""Fixtures that every test folder may use."""

from __future__ import annotations

import logging
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

from config.settings import load_settings
from tests.made_studies import keep_studies
from tests.waiting import HANGS_AFTER_S

# What a test needs beyond Python and `make setup`, by the fixtures that it asks for and by its folder.
# pyproject.toml says what each marker means. A test without any of them is quick.
_MARKERS_OF_FIXTURES = {
    "peer": {
        "chinese_font",
        "dciodvfy",
        "dcmqrscp",
        "dcmtk",
        "dsr2html",
        "dsrdump",
        "postgresql_server",
        "small_disk",
        "storescp",
    },
    "real_ct": {"test_data"},
    "trained": {"trained_packages"},
}
_MARKERS_OF_FOLDERS = {"e2e": "node", "net": "network", "fuzz": "network", "chaos": "node"}
_NEEDS = frozenset({"peer", "real_ct", "trained", "node", "network", "slow"})


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark each test by what it needs; mark those that need nothing `quick`. End each that hangs."""
    for item in items:
        if config.getoption("timeout") is None:
            item.add_marker(pytest.mark.timeout(HANGS_AFTER_S))
        fixtures = frozenset(getattr(item, "fixturenames", ()))
        for marker, needed in _MARKERS_OF_FIXTURES.items():
            if fixtures & needed:
                item.add_marker(marker)
        if getattr(item, "callspec", None) and item.callspec.params.get("store") == "postgresql":
            item.add_marker("peer")
        folder = item.path.relative_to(Path(__file__).parent).parts[0]
        if folder in _MARKERS_OF_FOLDERS:
            item.add_marker(_MARKERS_OF_FOLDERS[folder])
        if not _NEEDS & {marker.name for marker in item.iter_markers()}:
            item.add_marker("quick")


@pytest.fixture(scope="session", autouse=True)
def kept_studies(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> None:
    keep_studies(tmp_path_factory, worker_id)


@pytest.fixture(autouse=True)
def logs_as_before() -> Iterator[None]:
    """Commands set up the logs of their process: no later test is to hear less, or write elsewhere."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    structlog.reset_defaults()
    logging.captureWarnings(False)
    root.handlers = handlers
    root.setLevel(level)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own, 32 MiB in memory. Where none can be mounted, that fails if CI is set."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=32m,mode=0700", "tmpfs", folder],
        capture_output=True,
        text=True,
        check=False,
    )
    if mounted.returncode:
        if os.environ.get("CI") == "true":
            pytest.fail(f"a small disk cannot be mounted: {mounted.stderr}", pytrace=False)
        pytest.skip("a small disk cannot be mounted: that takes CAP_SYS_ADMIN")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


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
def chinese_font() -> Path:
    """The font that the default settings name for Chinese; its absence fails where CI is set."""
    font = Path(load_settings().node.wide_font)
    if not font.is_file():
        if os.environ.get("CI") == "true":
            pytest.fail(f"{font} is missing", pytrace=False)
        pytest.skip(f"{font} is missing: apt-get install fonts-wqy-microhei")
    return font


@pytest.fixture(scope="session")
def dciodvfy() -> Path:
    """dicom3tools' validator; its absence fails where CI is set."""
    tool = Path("/usr/bin/dciodvfy")
    if not tool.exists():
        if os.environ.get("CI") == "true":
            pytest.fail("dciodvfy is missing", pytrace=False)
        pytest.skip("dciodvfy is missing: apt-get install dicom3tools")
    return tool
