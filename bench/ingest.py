"""How fast instances are taken in: this node's listener, Orthanc, DCMTK's storescp and a bare pynetdicom SCP.

    .venv/bin/python bench/ingest.py [--rounds 5] [--instances 300] [--json]
                                     [--peers orthanc,storescp,pynetdicom]
    .venv/bin/python bench/ingest.py --memory 10000 [--json]

DCMTK's storescu sends CT images of 512 KiB over one association and over four at once, each receiver in turn,
each with an empty folder, TCP_NODELAY=1 at every end. What a receiver promises with its Success differs: this
node syncs the file, its folder and the row that names it, Orthanc and the bare SCP the file, storescp
nothing. The folders stay until the end, 750 MB a round of each receiver.
`ratios`: our median over theirs, of the same rounds. `--memory` sends that many small images, ten studies
over one association after another, and compares the memory of all processes of the node once it has closed
the first and once it has closed the last. Four such studies come before them, at once: memory follows the
largest study that a process has seen, and the first one would be taken for growth.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path

import numpy as np
import psutil
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

sys.path[0] = str(Path(__file__).parents[1])  # this file's own folder would hide packages of the same names

from config.settings import Settings, load_settings  # noqa: E402
from node.store.states import StudyState  # noqa: E402
from node.store.store import open_store  # noqa: E402

STORESCU, STORESCP, ECHOSCU, ORTHANC = (
    f"/usr/{place}" for place in ("bin/storescu", "bin/storescp", "bin/echoscu", "sbin/Orthanc")
)
ENVIRONMENT = {**os.environ, "TCP_NODELAY": "1"}  # DCMTK and Orthanc read it
SENDERS = (1, 4)
READY_S = 30.0
CLOSED_S = 120.0  # a study without gaps has been looked at and closed long before
MEMORY_SIDE = 64  # pixels a side where memory is looked at: the rows and associations matter, not the pixels

BARE_SCP = """
import os, sys
from pathlib import Path
from pynetdicom import AE, evt
from pynetdicom.dsutils import encode_file_meta

folder = Path(sys.argv[2])

def keep(event):
    target = folder / f"{event.request.AffectedSOPInstanceUID}.dcm"
    temporary = target.with_suffix(".part")
    with temporary.open("wb") as file:
        file.write(b"\\0" * 128 + b"DICM" + encode_file_meta(event.file_meta))
        file.write(event.encoded_dataset(include_meta=False))
        file.flush()
        os.fsync(file.fileno())
    temporary.rename(target)
    return 0

ae = AE("BARE")
ae.maximum_pdu_size = 0
ae.add_supported_context("1.2.840.10008.5.1.4.1.1.2")
ae.add_supported_context("1.2.840.10008.1.1")
nodelay = lambda event: event.assoc.dul.socket.socket.setsockopt(6, 1, 1)
handlers = [(evt.EVT_CONN_OPEN, nodelay), (evt.EVT_C_STORE, keep)]
ae.start_server(("127.0.0.1", int(sys.argv[1])), evt_handlers=handlers)
"""


def write_images(folder: Path, count: int, *, side: int = 512) -> None:
    """CT images of one series that no receiver has seen, as Part 10 files."""
    folder.mkdir(parents=True)
    study, series = generate_uid(), generate_uid()
    pixels = np.random.default_rng(count).integers(0, 2**12, (side, side), np.uint16).tobytes()
    for number in range(count):
        image = Dataset()
        image.file_meta = FileMetaDataset()
        image.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        image.SOPClassUID, image.SOPInstanceUID = CTImageStorage, generate_uid()
        image.StudyInstanceUID, image.SeriesInstanceUID = study, series
        image.PatientID, image.PatientName, image.Modality = "BENCH", "BENCH", "CT"
        image.InstanceNumber = number
        image.ImagePositionPatient = [0, 0, number]
        image.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
        image.Rows = image.Columns = side
        image.SamplesPerPixel, image.PhotometricInterpretation = 1, "MONOCHROME2"
        image.BitsAllocated = image.BitsStored = 16
        image.HighBit, image.PixelRepresentation = 15, 0
        image.PixelData = pixels
        image.save_as(folder / f"{number:05d}.dcm", enforce_file_format=True)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def running(command: Sequence[str], port: int, **options: object) -> Iterator[subprocess.Popen[bytes]]:
    """A receiver that answers C-ECHO."""
    with subprocess.Popen(
        command, env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **options
    ) as process:
        try:
            deadline = time.monotonic() + READY_S
            echo = [ECHOSCU, "-aec", "OSTEONODE", "127.0.0.1", str(port)]
            while subprocess.run(echo, env=ENVIRONMENT, capture_output=True, check=False).returncode != 0:
                if process.poll() is not None or time.monotonic() > deadline:
                    raise SystemExit(f"{command[0]} does not answer")
                time.sleep(0.1)
            yield process
        finally:
            process.terminate()


@contextmanager
def osteonode(folder: Path, port: int) -> Iterator[subprocess.Popen[bytes]]:
    """The listener as `osteonode serve` runs it, with no broker to take its jobs."""
    code = (
        "import sys; from config.settings import Settings; from node import logs;"
        "from node.processes.listener import run_listeners;"
        "settings = Settings.model_validate_json(sys.argv[1]); logs.configure(settings.log);"
        "sys.exit(run_listeners(settings, lambda _: None))"
    )
    settings = settings_of(folder, port).model_dump_json()
    with running([sys.executable, "-c", code, settings], port) as process:
        yield process


def settings_of(folder: Path, port: int) -> Settings:
    return load_settings(
        node={"port": port},
        storage={"root": folder},
        broker={"url": f"redis+socket://{folder}/no-broker.sock"},
        completeness={"quiet_s": 3600.0},
        log={"level": "WARNING"},
    )


@contextmanager
def orthanc(folder: Path, port: int) -> Iterator[subprocess.Popen[bytes]]:
    folder.mkdir(parents=True)
    configuration = folder / "orthanc.json"
    configuration.write_text(
        json.dumps(
            {
                "StorageDirectory": str(folder / "store"),
                "IndexDirectory": str(folder / "store"),
                "DicomPort": port,
                "HttpPort": free_port(),
                "DicomCheckCalledAet": False,
                "DicomAlwaysAllowStore": True,
                "Plugins": [],
                "ConcurrentJobs": 1,
            }
        )
    )
    with running([ORTHANC, str(configuration)], port) as process:
        yield process


@contextmanager
def storescp(folder: Path, port: int) -> Iterator[subprocess.Popen[bytes]]:
    folder.mkdir(parents=True)
    with running([STORESCP, "--fork", "-od", str(folder), str(port)], port) as process:
        yield process


@contextmanager
def pynetdicom(folder: Path, port: int) -> Iterator[subprocess.Popen[bytes]]:
    folder.mkdir(parents=True)
    with running([sys.executable, "-c", BARE_SCP, str(port), str(folder)], port) as process:
        yield process


RECEIVERS: dict[str, Callable[[Path, int], AbstractContextManager[subprocess.Popen[bytes]]]] = {
    one.__name__: one for one in (osteonode, orthanc, storescp, pynetdicom)
}


def send(folders: Sequence[Path], port: int) -> float:
    """Seconds until every sender has its last Success."""
    began = time.perf_counter()
    senders = [
        subprocess.Popen(
            [STORESCU, "-aec", "OSTEONODE", "+sd", "127.0.0.1", str(port), str(folder)],
            env=ENVIRONMENT,
            stdout=subprocess.DEVNULL,
        )
        for folder in folders
    ]
    if any(sender.wait() != 0 for sender in senders):
        raise SystemExit("a sender was refused")
    return time.perf_counter() - began


def timed(receiver: str, folders: Sequence[Path], scratch: Path) -> float:
    """Into an empty folder, which stays: a file system works off a removal while the next receiver writes."""
    port = free_port()
    with RECEIVERS[receiver](Path(tempfile.mkdtemp(dir=scratch)) / receiver, port):
        return send(folders, port)


def compared(peers: Sequence[str], *, rounds: int, instances: int) -> dict[str, object]:
    names = ("osteonode", *peers)
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        sources = [scratch / f"source-{number}" for number in range(max(SENDERS))]
        for source in sources:
            write_images(source, instances)
        seconds: dict[str, dict[int, list[float]]] = {name: {n: [] for n in SENDERS} for name in names}
        for turn in range(rounds):
            for senders in SENDERS:
                for name in names:
                    seconds[name][senders].append(timed(name, sources[:senders], scratch))
                    print(
                        f"round {turn + 1}, {senders} at once: {name} {seconds[name][senders][-1]:.2f} s",
                        file=sys.stderr,
                    )
    medians = {name: {n: statistics.median(by[n]) for n in SENDERS} for name, by in seconds.items()}
    words = {1: "one", 4: "four"}
    return {
        "ratios": {
            f"{words[n]}_vs_{peer}": medians["osteonode"][n] / medians[peer][n]
            for peer in peers
            for n in SENDERS
        },
        "seconds": medians,
        "all_seconds": seconds,
    }


def memory(instances: int) -> dict[str, object]:
    """Memory of the node's processes after the first tenth of the images and after the last."""
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        port = free_port()
        with osteonode(scratch / "kept", port) as process:
            send_small(scratch, port, studies=max(SENDERS), images=instances // 10)
            used_mib = []
            for tenth in range(10):
                send_small(scratch, port, studies=1, images=instances // 10)
                used_mib.append(own_mib(process.pid))
                print(f"{(tenth + 1) * instances // 10} images: {used_mib[-1]:.1f} MiB", file=sys.stderr)
    return {"ratios": {"memory_end_vs_start": used_mib[-1] / used_mib[0]}, "used_mib": used_mib}


def send_small(scratch: Path, port: int, *, studies: int, images: int) -> None:
    """Send studies of small images at once, and wait until the node has closed them."""
    with tempfile.TemporaryDirectory(dir=scratch) as folder:
        sources = [Path(folder) / f"{number}" for number in range(studies)]
        for source in sources:
            write_images(source, images, side=MEMORY_SIDE)
        send(sources, port)
    deadline = time.monotonic() + CLOSED_S
    with closing(open_store(settings_of(scratch / "kept", port).storage)) as store:
        while store.census.take().studies.get(StudyState.RECEIVING, 0) > 0:
            if time.monotonic() > deadline:
                raise SystemExit("a study without gaps stays open")
            time.sleep(0.5)


def own_mib(pid: int) -> float:
    """What a process and those that it started have written, each page that they share counted once.

    Not the pages of libraries: what other programs have loaded would be seen in them.
    """
    family = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    rolled_up = "".join(Path(f"/proc/{one.pid}/smaps_rollup").read_text() for one in family)
    return sum(map(int, re.findall(r"^Pss_Anon: +(\d+) kB", rolled_up, re.MULTILINE))) / 2**10


def main() -> None:
    arguments = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    arguments.add_argument("--rounds", type=int, default=5)
    arguments.add_argument("--instances", type=int, default=300)
    arguments.add_argument("--peers", default="orthanc,storescp,pynetdicom")
    arguments.add_argument("--memory", type=int, metavar="IMAGES")
    arguments.add_argument("--json", action="store_true")
    chosen = arguments.parse_args()
    found = (
        memory(chosen.memory)
        if chosen.memory
        else compared(chosen.peers.split(","), rounds=chosen.rounds, instances=chosen.instances)
    )
    print(json.dumps(found) if chosen.json else json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
