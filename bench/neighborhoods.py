#!/usr/bin/env python3
"""Times neighborhood cases in Vicinal, and prints the rates beside those that NATTEN reached elsewhere.

A case is a grid with a window, a stride and a dilation for each axis. Every round runs every case once, by `vicinal
bench` in a process of its own, in another order each round; printed are the median of the rounds and, in brackets, the
lowest and the highest, in TFLOP/s over the pairs that are kept. Tensors have their heads last, as NATTEN's have.

The peer's column is what NATTEN 0.21.7 took for the whole operation, its permutation of tokens included, on an H100 80GB
HBM3 in another session: a yardstick, and no comparison side by side.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import random
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path


@dataclasses.dataclass(frozen=True)
class Axis:
    extent: int
    window: int
    stride: int = 1
    dilation: int = 1
    causal: bool = False

    def line(self, name: str) -> str:
        words = [f"window = {self.window}"]
        if self.stride != 1:
            words.append(f"stride = {self.stride}")
        if self.dilation != 1:
            words.append(f"dilation = {self.dilation}")
        if self.causal:
            words.append("causal")
        return f"  axis {name} {{ {', '.join(words)} }}\n"


@dataclasses.dataclass(frozen=True)
class Case:
    name: str
    axes: tuple[Axis, ...]
    natten: tuple[float, float] | None  # TFLOP/s, forward and backward
    heads: int = 16
    head_dim: int = 128
    batch: int = 1

    def names(self) -> str:
        return "tyx"[-len(self.axes) :] if len(self.axes) > 1 else "t"

    def spec(self) -> str:
        return "attention case {\n" + "".join(a.line(n) for a, n in zip(self.axes, self.names())) + "}\n"

    def options(self) -> list[str]:
        grid = ",".join(f"{n}={a.extent}" for a, n in zip(self.axes, self.names()))
        shape = f"batch={self.batch},heads={self.heads},head_dim={self.head_dim}"
        return ["--shape", shape, "--grid", grid, "--layout", "bnhd", "--dtype", "bf16"]


def cosmos(y: Axis, x: Axis) -> tuple[Axis, ...]:
    return (Axis(24, 24), y, x)


CASES = [
    Case("1D 32k, window 2048", (Axis(32768, 2048),), (324, 212)),
    Case("1D 32k, window 2048, stride 256", (Axis(32768, 2048, 256),), (429, 219)),
    Case("128x128, window 31x31", (Axis(128, 31),) * 2, (160, 110)),
    Case("FLUX 4K, window 80x80", (Axis(256, 80),) * 2, (296, 201), heads=24),
    Case("FLUX 4K, window 80x80, stride 16x16", (Axis(256, 80, 16),) * 2, (554, 244), heads=24),
    Case("HunyuanVideo, window 18x24x24", (Axis(30, 18), Axis(48, 24), Axis(80, 24)), (197, 138), heads=24),
    Case("HunyuanVideo, stride 16x8x8", (Axis(30, 18, 16), Axis(48, 24, 8), Axis(80, 24, 8)), (574, 197), heads=24),
    Case("Cosmos 24x4x16, dilation 1x11x5", cosmos(Axis(44, 4, 1, 11), Axis(80, 16, 1, 5)), (364, 200)),
    Case("Cosmos 24x12x16, stride 1x4x1, dilation 1x1x5", cosmos(Axis(44, 12, 4), Axis(80, 16, 1, 5)), (500, 239)),
    Case("Cosmos 24x12x24, stride 1x4x8", cosmos(Axis(44, 12, 4), Axis(80, 24, 8)), (543, 246)),
    Case("Cosmos 24x20x40, stride 1x4x8", cosmos(Axis(44, 20, 4), Axis(80, 40, 8)), (595, 256)),
    Case("Cosmos 24x28x56, stride 1x4x8", cosmos(Axis(44, 28, 4), Axis(80, 56, 8)), (583, 259)),
    Case("Cosmos grid, causal in t, 24x12x24", (Axis(24, 24, causal=True), Axis(44, 12), Axis(80, 24)), None),
    Case("56x56, window 7, d64, batch 16", (Axis(56, 7),) * 2, (12.9, 8.8), heads=8, head_dim=64, batch=16),
    Case("128x128, window 13, d64", (Axis(128, 13),) * 2, (8.7, 12), head_dim=64),
    Case("16x16x16, window 7, d64", (Axis(16, 7),) * 3, (8.2, 12.9), head_dim=64),
]


def measure(binary: str, case: Case, more: list[str]) -> dict[str, object]:
    with tempfile.NamedTemporaryFile("w", suffix=".attn") as file:
        file.write(case.spec())
        file.flush()
        command = [binary, "bench", file.name, "--json", "--backend", "cuda", "--compile-repeat", "1", *case.options(), *more]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    if done.returncode != 0:
        raise RuntimeError(f"{case.name}: {done.stderr.strip()}")
    return json.loads(done.stdout)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--vicinal", required=True, help="the command")
    parser.add_argument("--cases", default="", help="words, of which a case's name has one; separated by `;`")
    parser.add_argument("--pass", dest="timed", choices=["forward", "backward"], default="forward")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--repeat", default="10", help="launches a round")
    parser.add_argument("more", nargs="*", help="options of `vicinal bench`, behind `--`")
    options = parser.parse_args()
    cases = [c for c in CASES if any(word in c.name for word in options.cases.split(";"))]
    rates: dict[str, list[float]] = {c.name: [] for c in cases}
    ran: dict[str, dict[str, object]] = {}
    for _ in range(options.rounds):
        for case in random.sample(cases, len(cases)):
            report = measure(options.vicinal, case, ["--repeat", options.repeat, "--pass", options.timed, *options.more])
            rates[case.name].append(float(report["tflops"]))
            ran[case.name] = report
    print("| case | TFLOP/s | NATTEN, elsewhere | ratio | kernel |\n| --- | --- | --- | --- | --- |")
    for case in cases:
        rounds = rates[case.name]
        middle = statistics.median(rounds)
        peer = case.natten[options.timed == "backward"] if case.natten else None
        natten = f"{peer:g} | {middle / peer:.2f}" if peer else "- | -"
        report = ran[case.name]
        path, reason = (report[name] for name in (
            ("gradient_path", "gradient_reason") if options.timed == "backward" else ("path", "path_reason")))
        print(f"| {case.name} | {middle:.4g} [{min(rounds):.4g}, {max(rounds):.4g}] | {natten} | "
              f"{path}: {reason} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
