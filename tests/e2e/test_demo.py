"""`osteonode demo`, as `make demo` runs it, on a smaller study."""

from __future__ import annotations

import subprocess

from pydicom import dcmread

from tests.e2e.conftest import OSTEONODE, free_port


def test_the_demonstration_gives_right_answers_and_keeps_what_came_back(tmp_path):
    run = subprocess.run(
        [OSTEONODE, "demo", "--reduced", "--out", tmp_path, "--port", str(free_port())],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert "The answers match the truth." in run.stdout
    assert run.stdout.count("right") == 5
    (kept,) = tmp_path.iterdir()
    received = [dcmread(path, stop_before_pixels=True) for path in (kept / "received").glob("*.dcm")]
    assert sorted(one.Modality for one in received) == [*["OT"] * 4, "SEG", "SR"]
    for name in ("nomogram.png", "overlay.png", "calibration.png", "result.json", "node.log"):
        assert (kept / name).stat().st_size > 0
