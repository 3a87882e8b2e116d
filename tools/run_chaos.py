"""Kills, starves and cuts off a real node at random while it is sent studies, and counts what became of them.

tools/run_chaos.py [--minutes 10] [--studies 40] [--seed N]

Exit status 1 where a study has not exactly one report at the PACS for its last generation, or anything of the
node is left over. Filling the disk takes a small file system of its own, and mounting that CAP_SYS_ADMIN.
"""

from __future__ import annotations

import argparse
import secrets
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.chaos.chaos_run import run
from tests.chaos.fire import small_disk


def main() -> int:
    options = argparse.ArgumentParser()
    options.add_argument("--minutes", type=float, default=10.0)
    options.add_argument("--studies", type=int, default=40)
    options.add_argument("--seed", type=int, default=secrets.randbelow(1 << 31))
    given = options.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="osteonode-chaos-"))
    print(f"seed {given.seed}, log in {folder}", flush=True)
    with small_disk(folder / "disk", given.studies) as disk:
        if disk is None:
            print("no small disk can be mounted here: the disk is not filled")
        outcome = run(
            folder,
            studies=given.studies,
            seed=given.seed,
            seconds=60.0 * given.minutes,
            patience_s=300.0,
            disk=disk,
        )
    print(outcome.table())
    return 1 if outcome.problems else 0


if __name__ == "__main__":
    sys.exit(main())
