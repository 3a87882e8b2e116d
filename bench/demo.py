"""Stage timings and memory of the demonstration, as a user starts it.

    .venv/bin/python bench/demo.py [--runs 3] [--reduced] [--json]

Memory is the peak proportional set size (PSS: shared pages counted once among their users) of each process of
the node, sampled every 0.2 s. Times of steps come from the node's own log.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from datetime import datetime
from pathlib import Path

import psutil


def role_of(process: psutil.Process) -> str | None:
    words = process.cmdline()
    if "node.processes.child" in words:
        role = words[words.index("node.processes.child") + 1].split(":")[0]
        return role if process.parent().cmdline() != words else f"{role} (pool)"
    if any("redis-server" in word for word in words[:1]):
        return "redis-server"
    return "supervisor" if "serve" in words else None


def sample(root: psutil.Process, peaks: dict[str, float]) -> None:
    for process in root.children(recursive=True):
        try:
            role = role_of(process)
            if role is not None:
                peaks[role] = max(peaks[role], process.memory_full_info().pss / 2**20)
        except psutil.Error:
            continue


def run_once(*, reduced: bool) -> tuple[dict[str, float], dict[str, float]]:
    """(seconds by stage, MiB by process)."""
    peaks: dict[str, float] = defaultdict(float)
    with tempfile.TemporaryDirectory() as folder:
        command = [
            sys.executable,
            "-m",
            "node.cli",
            "demo",
            "--out",
            folder,
            *(["--reduced"] if reduced else []),
        ]
        started = time.monotonic()
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as demo:
            root = psutil.Process(demo.pid)
            while demo.poll() is None:
                sample(root, peaks)
                time.sleep(0.2)
        if demo.returncode != 0:
            raise SystemExit(f"the demonstration failed with status {demo.returncode}")
        seconds = {"whole demonstration": time.monotonic() - started}
        (log,) = Path(folder).glob("*/node.log")
        events = [json.loads(line) for line in log.read_text("utf-8").splitlines() if line.startswith("{")]
    at = {event["event"]: datetime.fromisoformat(event["timestamp"]) for event in events}
    started_at = datetime.fromisoformat(events[0]["timestamp"])
    seconds["start of the node"] = (at["node_ready"] - started_at).total_seconds()
    arrived = [event for event in events if event["event"] == "association_closed" and event["instances"]]
    whole_at = datetime.fromisoformat(arrived[0]["timestamp"])
    seconds["last image to results sent"] = (at["study_finished"] - whole_at).total_seconds()
    for event in events:
        if event["event"] == "step_finished":
            seconds[f"step {event['step']}"] = event["seconds"]
    return seconds, peaks


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--reduced", action="store_true")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    runs = [run_once(reduced=options.reduced) for _ in range(options.runs)]
    seconds = {name: statistics.median(run[0][name] for run in runs) for name in runs[0][0]}
    memory = {name: statistics.median(run[1].get(name, 0.0) for run in runs) for name in runs[0][1]}
    if options.json:
        print(json.dumps({"seconds": seconds, "peak_pss_mib": memory, "ratios": {}}))
        return
    for title, values, unit in (("median of time", seconds, "s"), ("median of peak PSS", memory, "MiB")):
        print(f"{title}, {options.runs} run(s)")
        for name, value in values.items():
            print(f"  {name:<34}{value:8.1f} {unit}")


if __name__ == "__main__":
    main()
