"""A disk that runs full under the listener: a real one, of 32 MiB."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from pydicom import Dataset
from pynetdicom import AE

from config.settings import Settings, load_settings
from node.commands import check
from node.dicom.result_headers import made_here
from node.net.scp import Listener
from node.processes.page import make_probes
from node.store import files as store_files
from node.store.store import Store, open_store
from node.web.sources import NotReady

MIB = 1 << 20


@pytest.fixture
def settings(loops: str, small_disk: Path) -> Settings:
    return load_settings(
        node={"port": 0}, storage={"root": str(small_disk / "var"), "min_free_bytes": 12 * MIB}
    )


@pytest.fixture
def store(settings: Settings) -> Iterator[Store]:
    with closing(open_store(settings.storage)) as opened:
        yield opened


@pytest.fixture
def port(settings: Settings, store: Store) -> Iterator[int]:
    listener = Listener(settings.node, store, made_here)
    yield listener.start()
    listener.stop()


@pytest.fixture
def ballast(small_disk: Path) -> Iterator[Path]:
    """All but 8 MiB of the disk are used."""
    file = small_disk / "ballast"
    file.write_bytes(bytes(24 * MIB))
    yield file
    file.unlink(missing_ok=True)


def _send(port: int, *datasets: Dataset) -> list[int]:
    ae = AE("PEER")
    ae.add_requested_context(datasets[0].SOPClassUID, datasets[0].file_meta.TransferSyntaxUID)
    association = ae.associate("127.0.0.1", port)
    assert association.is_established
    statuses = [int(association.send_c_store(dataset).Status) for dataset in datasets]
    association.release()
    return statuses


def test_under_the_watermark_nothing_is_written_and_reception_recovers_by_itself(
    settings: Settings,
    store: Store,
    port: int,
    ballast: Path,
    make_dataset: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    parts = settings.model_copy(update={"node": settings.node.model_copy(update={"port": port})})
    written: list[Path] = []
    write = store_files.write_durably
    monkeypatch.setattr(
        store_files, "write_durably", lambda target, chunks: (written.append(target), write(target, chunks))
    )
    assert _send(port, make_dataset(1), make_dataset(2)) == [0xA700, 0xA700]
    assert written == []
    assert store.overview.list() == ()
    with pytest.raises(NotReady, match="nothing is received"):
        make_probes(parts, store)["disk"]()
    ballast.unlink()
    assert _send(port, make_dataset(1), make_dataset(2)) == [0x0000, 0x0000]
    assert len(written) == 2
    assert make_probes(parts, store)["disk"]() == "has space"


def test_what_is_held_is_acknowledged_under_the_watermark(
    store: Store, port: int, ballast: Path, make_dataset: Any
) -> None:
    content = ballast.read_bytes()
    ballast.unlink()
    assert _send(port, make_dataset(1)) == [0x0000]
    ballast.write_bytes(content)
    assert _send(port, make_dataset(1), make_dataset(2)) == [0x0000, 0xA700]


def test_an_instance_that_would_pass_the_watermark_is_refused_though_there_is_space_for_it(
    port: int, small_disk: Path, make_dataset: Any
) -> None:
    (small_disk / "ballast").write_bytes(bytes(16 * MIB))
    large = make_dataset(1, Rows=2048, Columns=1024, PixelData=bytes(4 * MIB))
    assert _send(port, make_dataset(2), large) == [0x0000, 0xA700]


def test_work_in_hand_is_finished_with_what_is_kept_back(store: Store, ballast: Path) -> None:
    path = store.files.write("artefacts", "0" * 64, (bytes(MIB),))
    assert store.files.holds(path)


def test_check_fails_under_the_watermark(settings: Settings, store: Store, ballast: Path) -> None:
    standing, told = check._disk(settings)
    assert standing is check.CheckStatus.FAILED
    assert "nothing is received" in told
    ballast.unlink()
    assert check._disk(settings)[0] is check.CheckStatus.WARNING  # 32 MiB are few
