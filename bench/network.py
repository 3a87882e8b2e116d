"""Ways to run one full-size tile through nnU-Net's network on the processor, compared in one run.

    python bench/network.py [--json] [--tile 128] [--rounds 3]

Needs the extra (make setup-totalsegmentator). Random weights of the real architecture: what is timed is
arithmetic alone. `ratios`: each way over the plain one, medians of interleaved rounds; below 1 is faster.
`agreement`: share of voxels that keep their class.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from dynamic_network_architectures.architectures.unet import PlainConvUNet

FEATURES = [32, 64, 128, 256, 320, 320]  # of TotalSegmentator's dataset 292, as its plans.json has them
CLASSES = 27


def network() -> Any:
    torch.manual_seed(1)
    stages = len(FEATURES)
    built = PlainConvUNet(
        input_channels=1,
        n_stages=stages,
        features_per_stage=FEATURES,
        conv_op=torch.nn.Conv3d,
        kernel_sizes=[[3, 3, 3]] * stages,
        strides=[[1, 1, 1]] + [[2, 2, 2]] * (stages - 1),
        n_conv_per_stage=[2] * stages,
        num_classes=CLASSES,
        n_conv_per_stage_decoder=[2] * (stages - 1),
        conv_bias=True,
        norm_op=torch.nn.InstanceNorm3d,
        norm_op_kwargs={"eps": 1e-5, "affine": True},
        nonlin=torch.nn.LeakyReLU,
        nonlin_kwargs={"inplace": True},
        deep_supervision=False,
    )
    return built.eval()


def ways(tile: torch.Tensor) -> dict[str, Callable[[], torch.Tensor]]:
    """Each gives the classes' scores of the tile."""
    plain, compiled = network(), torch.compile(network())
    last = network().to(memory_format=torch.channels_last_3d)
    tile_last = tile.to(memory_format=torch.channels_last_3d)

    def in_bfloat16() -> torch.Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return plain(tile)

    def pinned() -> torch.Tensor:
        """One thread held to one core: what is left of the speed where each worker gets a core of its own."""
        allowed = os.sched_getaffinity(0)
        threads = torch.get_num_threads()
        os.sched_setaffinity(0, {min(allowed)})
        torch.set_num_threads(1)
        try:
            return plain(tile)
        finally:
            torch.set_num_threads(threads)
            os.sched_setaffinity(0, allowed)

    return {
        "plain": lambda: plain(tile),
        "one_pinned_thread": pinned,
        "channels_last": lambda: last(tile_last),
        "bfloat16": in_bfloat16,
        "compiled": lambda: compiled(tile),
    }


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--json", action="store_true")
    options.add_argument("--tile", type=int, default=128)
    options.add_argument("--rounds", type=int, default=3)
    given = options.parse_args()
    tile = torch.randn(1, 1, given.tile, given.tile, given.tile, generator=torch.Generator().manual_seed(2))
    with torch.inference_mode():
        tried = ways(tile)
        answers, first = {}, {}
        for name, run in tried.items():
            start = time.perf_counter()
            answers[name] = run().argmax(dim=1)
            first[name] = time.perf_counter() - start
        seconds: dict[str, list[float]] = {name: [] for name in tried}
        for _ in range(given.rounds):
            for name, run in tried.items():
                start = time.perf_counter()
                run()
                seconds[name].append(time.perf_counter() - start)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    others = [name for name in tried if name != "plain"]
    found = {
        "ratios": {name: medians[name] / medians["plain"] for name in others},
        "agreement": {name: float((answers[name] == answers["plain"]).float().mean()) for name in others},
        "seconds": medians,
        "first_s": first,
    }
    if given.json:
        print(json.dumps(found))
        return
    for name, median in medians.items():
        agreed = found["agreement"].get(name, 1.0)
        ratio = median / medians["plain"]
        line = f"{name:14s} {median:6.2f} s, ratio {ratio:.2f}, same class {agreed:.4f}"
        print(f"{line}, first {first[name]:.1f} s")


if __name__ == "__main__":
    main()
