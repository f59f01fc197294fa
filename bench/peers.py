#!/usr/bin/env python3
"""Times attention cases in Vicinal and in its peers, in turns on one GPU, and prints the rates side by side.

Peers are what PyTorch 2.11 offers: cuDNN and FlashAttention-2 behind scaled_dot_product_attention, and
FlexAttention. What is timed is one call, of the forward pass or with `--pass backward` of the backward pass to the
gradients of Q, K and V, between two CUDA events, after a call that is not counted. A buffer of twice the L2 cache is overwritten before each call. Vicinal is timed by `vicinal bench`, which does the
same in a process of its own. Neither its plan of tiles nor FlexAttention's block mask is part of a call.

A GPU at its power limit changes its clock with what it has just done, so nothing is measured in one piece: in every
round each pair of a case and a peer takes a turn, in another order each round. A round counts by the median of its
calls; printed are the median of the rounds and, in brackets, the lowest and the highest. A product of two large
matrices takes its turn as well and tells how steady the clock was.

Rates are 4 * head_dim operations for each kept pair of a query and a key, and 2.5 times that backward. The pairs are counted here, exactly and
in one way for all. Results are not compared: that is what Vicinal's tests do.
"""

from __future__ import annotations

import argparse
import dataclasses
import faulthandler
import json
import os
import random
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).resolve().parent
GALLERY = HERE.parent / "specs"
SPECS = {  # by mask and score
    ("full", ""): HERE / "specs/full.attn",
    ("causal", ""): GALLERY / "causal.attn",
    ("full", "alibi"): HERE / "specs/alibi_full.attn",
    ("causal", "alibi"): GALLERY / "alibi.attn",
    ("causal", "softcap"): GALLERY / "softcap.attn",
    ("window", ""): GALLERY / "sliding_window.attn",
    ("documents", ""): HERE / "specs/same_document.attn",
}
PEERS = {"ours": "ours", "ordered": "ours, in order", "cudnn": "cuDNN", "fa2": "FA2", "flex": "Flex"}
OURS = {"ours": ["--nondeterministic"], "ordered": []}  # what is said to `vicinal bench`, of the backward pass
CAP = 30.0
WARM_UP = 1  # as in `vicinal bench`, at the head of each burst
IDLE_SECONDS = 0.02


@dataclasses.dataclass(frozen=True)
class Case:
    name: str
    mask: str
    score: str = ""
    batch: int = 1
    heads: int = 16
    kv_heads: int = 16
    tokens: int = 16384
    head_dim: int = 128
    window: int = 1024
    documents: int = 12
    backward: bool = False

    def document_lengths(self) -> list[int]:
        cuts = sorted(random.Random(0).sample(range(1, self.tokens), self.documents - 1))
        return [end - begin for begin, end in zip([0, *cuts], [*cuts, self.tokens])]

    def inputs(self) -> dict[str, np.ndarray]:
        """What the spec, or a function for FlexAttention, captures."""
        if self.mask == "documents":
            return {"document": np.repeat(np.arange(self.documents, dtype=np.int32), self.document_lengths())}
        if self.score == "alibi":
            return {"slopes": np.exp2(-8 * np.arange(1, self.heads + 1) / self.heads).astype(np.float32)}
        return {}

    def params(self) -> dict[str, float]:
        window = {"window": self.window} if self.mask == "window" else {}
        return window | ({"cap": CAP} if self.score == "softcap" else {})

    def mask_mod(self, captured: dict[str, Any]) -> Callable[..., Any] | None:
        """For FlexAttention's indices, or for arrays of NumPy."""
        window, document = self.window, captured.get("document", ())
        return {
            "full": None,
            "causal": lambda b, h, q, k: q >= k,
            "window": lambda b, h, q, k: (q >= k) & (q - k < window),
            "documents": lambda b, h, q, k: document[q] == document[k],
        }[self.mask]

    def score_mod(self, captured: dict[str, Any]) -> Callable[..., Any] | None:
        slopes = captured.get("slopes", ())
        if self.score == "softcap":
            return lambda score, b, h, q, k: CAP * (score / CAP).tanh()
        if self.score == "alibi" and self.mask == "causal":
            return lambda score, b, h, q, k: score - slopes[h] * (q - k)
        if self.score == "alibi":
            return lambda score, b, h, q, k: score - slopes[h] * (q - k).abs()
        return None

    def pairs(self) -> int:
        """That the mask keeps, over all heads."""
        n = self.tokens
        kept = {
            "full": lambda: n * n,
            "causal": lambda: n * (n + 1) // 2,
            "window": lambda: sum(min(i + 1, self.window) for i in range(n)),
            "documents": lambda: sum(length**2 for length in self.document_lengths()),
        }
        return self.batch * self.heads * kept[self.mask]()

    def operations(self) -> int:
        if self is CLOCK:
            return 2 * self.tokens**3
        return (10 if self.backward else 4) * self.head_dim * self.pairs()


CLOCK = Case("matmul 8192^3", "matmul", tokens=8192)


def all_cases() -> list[Case]:
    cases = []
    for mask in ("full", "causal"):
        for dim, heads in ((64, 16), (96, 16), (128, 16), (192, 8), (256, 8)):
            cases.append(Case(f"{mask} d{dim}", mask, heads=heads, kv_heads=heads, head_dim=dim))
        cases.append(Case(f"{mask} d128 B4 4096", mask, batch=4, tokens=4096))
    return cases + [
        Case("GQA 32:8 causal d128", "causal", heads=32, kv_heads=8),
        Case("ALiBi full d128", "full", "alibi"),
        Case("ALiBi causal d128", "causal", "alibi"),
        Case("softcap 30 causal d128", "causal", "softcap"),
        Case("window 1024 d128", "window"),
        Case("12 documents d128", "documents"),
    ]


class Unsupported(Exception):
    """A peer does not do a case; says why, unless the peer has no way to express it."""


@dataclasses.dataclass(frozen=True)
class Vicinal:
    binary: str
    dtype: str
    repeat: int
    folder: Path
    hang: float
    backend: str = "cuda"
    kernel: str = ""

    def bench(self, case: Case, *more: str) -> dict[str, Any]:
        """The report of `vicinal bench`, which must be of the pairs counted here."""
        sizes = ("batch", "heads", "kv_heads", "tokens", "head_dim")
        words = [self.binary, "bench", str(SPECS[case.mask, case.score]), "--json", "--backend", self.backend]
        words += ["--dtype", self.dtype, "--repeat", str(self.repeat), "--compile-repeat", "1"]
        words += ["--shape", ",".join(f"{name}={getattr(case, name)}" for name in sizes)]
        words += ["--pass", "backward"] if case.backward else []
        words += [*more, *(["--kernel", self.kernel] if self.kernel else [])]
        for name, value in case.params().items():
            words += ["--param", f"{name}={value}"]
        for name, array in case.inputs().items():
            file = self.folder / f"{name}.npy"
            np.save(file, array)
            words += ["--input", f"{name}={file}"]
        try:
            done = subprocess.run(words, capture_output=True, text=True, timeout=self.hang)
        except subprocess.TimeoutExpired:
            sys.exit(f"hangs: {' '.join(words)}")
        if done.returncode != 0:
            raise Unsupported((done.stderr.strip() or f"exit {done.returncode}").splitlines()[0])
        report: dict[str, Any] = json.loads(done.stdout)
        # It estimates them from a sample of the rows where there are many.
        if not 0.6 < report["kept_pairs"] / case.pairs() < 1.6:
            sys.exit(f"{case.name}: {report['kept_pairs']} pairs and not {case.pairs()}: {' '.join(words)}")
        return report


class Torch:
    def __init__(self, dtype: str):
        import torch
        from torch.nn.attention import SDPBackend, sdpa_kernel
        from torch.nn.attention.flex_attention import create_block_mask, flex_attention

        if not torch.cuda.is_available():
            sys.exit("PyTorch finds no GPU")
        torch.manual_seed(0)
        torch._dynamo.config.recompile_limit = 256  # each case is compiled for itself
        self.torch, self.sdpa_kernel = torch, sdpa_kernel
        self.dtype = {"bf16": torch.bfloat16, "f16": torch.float16, "f32": torch.float32}[dtype]
        self.backends = {"cudnn": SDPBackend.CUDNN_ATTENTION, "fa2": SDPBackend.FLASH_ATTENTION}
        # As a full graph it fails where it would otherwise run uncompiled.
        self.flex_attention = torch.compile(flex_attention, fullgraph=True, dynamic=False)
        self.create_block_mask = create_block_mask  # compiled it takes minutes where nothing is cached
        device = torch.cuda.get_device_properties(0)
        self.flush = torch.empty(2 * device.L2_cache_size + 1, dtype=torch.uint8, device="cuda")
        self.about: dict[str, Any] = {"device": device.name, "torch": torch.__version__}
        self.about |= {"cudnn": torch.backends.cudnn.version(), "dtype": dtype}
        self.tensors: dict[tuple[int, ...], Any] = {}

    def normal(self, which: int, *shape: int, learnable: bool = False) -> Any:
        """The operand `which` of all calls that have one of this shape."""
        key = (which, *shape)
        if key not in self.tensors:
            self.tensors[key] = self.torch.randn(shape, dtype=self.dtype, device="cuda", requires_grad=learnable)
        return self.tensors[key]

    def call(self, peer: str, case: Case, seconds: dict[str, float]) -> Callable[[], Any]:
        """Something to call without arguments, called once; into `seconds` goes how long what compiles took."""
        if peer in self.backends and (case.score or case.mask not in ("full", "causal")):
            raise Unsupported
        make = {"flex": self.flex, "matmul": self.matmul}.get(peer, self.sdpa)
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            try:
                call = make(peer, case, seconds)
                if case.backward:
                    call = self.backward(call, case)
                seconds["first call"] = self.timed(call)[1]
                return call
            except Exception as error:
                reasons = [str(w.message).split(" (Triggered")[0] for w in said] + [str(error) or repr(error)]
                raise Unsupported(" ".join(" ".join(dict.fromkeys(reasons)).split())[:400]) from error

    def timed(self, f: Callable[[], Any]) -> tuple[Any, float]:
        start = time.perf_counter()
        result = f()
        self.torch.cuda.synchronize()
        return result, time.perf_counter() - start

    def qkv(self, case: Case) -> list[Any]:
        heads = (case.heads, case.kv_heads, case.kv_heads)
        shapes = [(case.batch, h, case.tokens, case.head_dim) for h in heads]
        return [self.normal(i, *shape, learnable=case.backward) for i, shape in enumerate(shapes)]

    def backward(self, forward: Callable[[], Any], case: Case) -> Callable[[], Any]:
        """The gradients alone, from what one forward call leaves behind."""
        qkv, out = self.qkv(case), forward()
        d_out = self.normal(3, *out.shape)
        return lambda: self.torch.autograd.grad(out, qkv, d_out, retain_graph=True)

    def sdpa(self, peer: str, case: Case, _: dict[str, float]) -> Callable[[], Any]:
        q, k, v = self.qkv(case)
        causal, gqa = case.mask == "causal", case.heads != case.kv_heads
        attention = self.torch.nn.functional.scaled_dot_product_attention

        def call() -> Any:
            with self.sdpa_kernel(self.backends[peer]):
                return attention(q, k, v, is_causal=causal, enable_gqa=gqa)

        return call

    def flex(self, _: str, case: Case, seconds: dict[str, float]) -> Callable[[], Any]:
        q, k, v = self.qkv(case)
        captured = {name: self.torch.from_numpy(array).cuda() for name, array in case.inputs().items()}
        mask, score_mod, n = case.mask_mod(captured), case.score_mod(captured), case.tokens
        blocks, gqa = None, case.heads != case.kv_heads
        if mask is not None:
            blocks, seconds["block mask"] = self.timed(lambda: self.create_block_mask(mask, None, None, n, n, "cuda"))
        return lambda: self.flex_attention(q, k, v, score_mod=score_mod, block_mask=blocks, enable_gqa=gqa)

    def matmul(self, _: str, case: Case, __: dict[str, float]) -> Callable[[], Any]:
        a, b = (self.normal(which, case.tokens, case.tokens) for which in range(2))
        return lambda: a @ b

    def milliseconds(self, call: Callable[[], Any], repeat: int) -> float:
        cuda, events = self.torch.cuda, []
        cuda.synchronize()
        time.sleep(IDLE_SECONDS)
        # The host waits only at the end: what it spends on a call is hidden behind the call before.
        for _ in range(WARM_UP + repeat):
            begin, end = cuda.Event(enable_timing=True), cuda.Event(enable_timing=True)
            self.flush.zero_()
            begin.record()
            call()
            end.record()
            events.append((begin, end))
        cuda.synchronize()
        return float(statistics.median(begin.elapsed_time(end) for begin, end in events[WARM_UP:]))


    def in_a_row(self, call: Callable[[], Any], in_graph: bool) -> float:
        """Microseconds that each of many calls takes which are waited for together, as in `vicinal bench --launch`."""
        cuda, count, times = self.torch.cuda, 200, []
        call()
        graph = cuda.CUDAGraph()
        if in_graph:
            with cuda.graph(graph):
                for _ in range(count):
                    call()
        for _ in range(10):
            cuda.synchronize()
            start = time.perf_counter()
            if in_graph:
                graph.replay()
            else:
                for _ in range(count):
                    call()
            cuda.synchronize()
            times.append((time.perf_counter() - start) / count * 1e6)
        return statistics.median(times[1:])


@dataclasses.dataclass
class Measured:
    milliseconds: list[float] = dataclasses.field(default_factory=list)  # by round
    seconds: dict[str, float] = dataclasses.field(default_factory=dict)  # of compiling
    note: str = ""
    failed: bool = False


Key = tuple[Case, str]  # and a peer
Results = dict[Key, Measured]


def spread(values: list[float], form: str) -> str:
    if not values:
        return "-"
    return f"{statistics.median(values):{form}} ({min(values):{form}}..{max(values):{form}})"


def table(results: Results, about: dict[str, Any]) -> str:
    def rates(case: Case, peer: str) -> str:
        return spread([case.operations() / ms * 1e-9 for ms in results[case, peer].milliseconds], ".1f")

    def ratio(case: Case, peer: str) -> str:
        ours, theirs = results[case, "ours"].milliseconds, results[case, peer].milliseconds
        return f"{statistics.median(theirs) / statistics.median(ours):.2f}" if ours and theirs else "-"

    cases, peers = (dict.fromkeys(part) for part in zip(*(key for key in results if key[0] is not CLOCK)))
    compared = [peer for peer in ("ordered", "cudnn", "flex") if peer in peers]
    rows = [["case, in TFLOP/s", *(PEERS[p] for p in peers), *(f"ours/{PEERS[p]}" for p in compared)]]
    rows += [[c.name, *(rates(c, p) for p in peers), *(ratio(c, p) for p in compared)] for c in cases]
    widths = [max(map(len, column)) for column in zip(*rows)]
    lines = [" | ".join(text.ljust(width) for text, width in zip(row, widths)).rstrip() for row in rows]
    lines.insert(1, "-|-".join("-" * width for width in widths))
    lines += ["", ", ".join(f"{name} {value}" for name, value in about.items())]
    lines += [f"{CLOCK.name}: {rates(CLOCK, 'matmul')} TFLOP/s"]
    for peer, what in (("ours", "NVRTC, cold"), ("flex", "first call"), ("flex", "block mask")):
        seconds = [m.seconds[what] for key, m in results.items() if key[1] == peer and what in m.seconds]
        lines += [f"compiling, {PEERS[peer]}, {what}: {spread(seconds, '.2f')} s"] if seconds else []
    lines += [f"{case.name}: {PEERS.get(peer, peer)}: {m.note}" for (case, peer), m in results.items() if m.note]
    return "\n".join(lines) + "\n"


def as_json(results: Results, about: dict[str, Any]) -> str:
    rows = [{"case": dataclasses.asdict(case), "peer": peer, "operations": case.operations()} | dataclasses.asdict(m)
            for (case, peer), m in results.items()]
    return json.dumps({"about": about, "measured": rows}, indent=2) + "\n"


def measure(options: argparse.Namespace, cases: list[Case], peers: list[str], folder: Path) -> str:
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(folder / "inductor")  # so that a first call compiles
    torch = Torch(options.dtype)
    vicinal = Vicinal(options.vicinal, options.dtype, options.repeat, folder, options.hang, kernel=options.kernel)
    about = torch.about | {"rounds": options.rounds, "repeat": options.repeat}
    keys: list[Key] = [*((case, peer) for case in cases for peer in peers), (CLOCK, "matmul")]
    results: Results = {key: Measured() for key in keys}
    calls: dict[Key, Callable[[], Any]] = {}

    def turn(say: str, key: Key, limit: float, work: Callable[[Key, Measured], None]) -> None:
        print(f"{say}: {key[0].name}: {key[1]}", file=sys.stderr, flush=True)
        faulthandler.dump_traceback_later(limit, exit=True)
        try:
            work(key, results[key])
        except Unsupported as why:
            results[key].note, results[key].failed = str(why), True
        finally:
            faulthandler.cancel_dump_traceback_later()

    def prepare(key: Key, m: Measured) -> None:
        calls[key] = torch.call(key[1], key[0], m.seconds)

    def take(key: Key, m: Measured) -> None:
        if key in calls:
            return m.milliseconds.append(torch.milliseconds(calls[key], options.repeat))
        report = vicinal.bench(key[0], *(OURS[key[1]] if key[0].backward else []))
        m.milliseconds.append(report[options.timed]["median"])
        m.seconds |= {"NVRTC, cold": report[n]["median"] / 1000 for n in report if n.startswith("nvrtc_cold_")}
        path = report["gradient_path" if key[0].backward else "path"]
        m.note = "" if path == "cuda/hopper" else path

    for key in keys:
        if key[1] not in OURS:
            turn("prepare", key, 3 * options.hang, prepare)  # it compiles
    for number in range(options.rounds):
        left = [key for key in keys if not results[key].failed]
        for key in random.Random(number).sample(left, len(left)):
            turn(f"round {number + 1}/{options.rounds}", key, options.hang + 1, take)  # bench() gives up by itself
        if options.json:  # by round: the next one may hang
            options.json.write_text(as_json(results, about))
    return table(results, about)


def launches(options: argparse.Namespace, folder: Path) -> str:
    """What a call costs whose work is next to nothing."""
    torch = Torch(options.dtype)
    vicinal = Vicinal(options.vicinal, options.dtype, 1, folder, options.hang)
    lines = ["microseconds a call | in a row | in a graph", "--------------------|----------|-----------"]
    for head_dim in (64, 128):
        case = Case(f"1 head, 128 tokens, d{head_dim}", "full", heads=1, kv_heads=1, tokens=128, head_dim=head_dim)
        report = vicinal.bench(case, "--launch")
        rows = {"ours": [1000 * report[f"launch_in_{where}"]["median"] for where in ("row", "graph")]}
        for peer in ("cudnn", "fa2"):
            call = torch.call(peer, case, {})
            rows[peer] = [torch.in_a_row(call, in_graph) for in_graph in (False, True)]
        lines += [f"{case.name}, {PEERS[peer]} | {a:.2f} | {b:.2f}" for peer, (a, b) in rows.items()]
    return "\n".join(lines) + "\n"


def self_test(binary: str | None) -> None:
    """What needs no GPU: pairs against brute force and against `vicinal bench`, and the report."""
    small = [dataclasses.replace(case, tokens=48 + case.head_dim // 32, head_dim=8, window=17, documents=5)
             for case in all_cases()]
    with tempfile.TemporaryDirectory() as folder:
        for case in small:
            keeps = case.mask_mod(case.inputs()) or (lambda b, h, q, k: (q >= 0) & (k >= 0))
            at = np.arange(case.tokens)
            brute = case.batch * case.heads * int(keeps(0, 0, at[:, None], at[None, :]).sum())
            assert brute == case.pairs(), (case, brute)
            if binary:
                report = Vicinal(binary, "f16", 1, Path(folder), 60, "interpreter").bench(case)
                assert round(report["kept_pairs"]) == brute and report["forward"]["median"] > 0, (case, report)
    results = {(case, peer): Measured() for case in small for peer in PEERS} | {(CLOCK, "matmul"): Measured([2.0])}
    results[small[0], "ours"], results[small[0], "flex"] = Measured([1.0, 2.0, 3.0]), Measured([4.0], {"first call": 2})
    results[small[1], "cudnn"].note = "made up"
    text = table(results, {"device": "none"})
    assert all(part in text for part in ("| 2.00\n", "cuDNN: made up\n", "first call: 2.00 (2.00..2.00) s\n")), text
    assert len(json.loads(as_json(results, {}))["measured"]) == len(results)
    print(f"{len(small)} cases" + ("" if binary else "; without `vicinal bench`: pass --vicinal PATH"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--vicinal", metavar="PATH", default=shutil.which("vicinal"), help="default: where the shell finds it")
    add("--pass", dest="timed", choices=["forward", "backward"], default="forward", help="default: %(default)s")
    add("--cases", metavar="REGEX", default="", help="those whose names it finds")
    add("--tokens", type=int, help="in place of a case's own number, for those of one sequence")
    add("--peers", default="cudnn,fa2,flex", help="default: %(default)s")
    add("--rounds", type=int, default=5, help="default: %(default)s")
    add("--repeat", type=int, default=20, help="timed calls in a round; default: %(default)s")
    add("--dtype", choices=["bf16", "f16", "f32"], default="bf16", help="default: %(default)s")
    add("--json", metavar="FILE", type=Path, help="all that was measured; written after every round")
    add("--kernel", default="", help="of ours; default: the fastest")
    add("--hang", metavar="SECONDS", type=float, default=60,
        help="end when a turn takes longer, or a first call three times as long; default: %(default)s")
    add("--launch", action="store_true", help="instead: what a call costs whose work is next to nothing")
    add("--self-test", action="store_true", help="check what needs no GPU")
    options = parser.parse_args()
    if options.self_test:
        return self_test(options.vicinal)
    backward = options.timed == "backward"
    cases = [dataclasses.replace(case, backward=backward) for case in all_cases() if re.search(options.cases, case.name)]
    if options.tokens:
        cases = [dataclasses.replace(case, tokens=options.tokens, name=f"{case.name}, {options.tokens} tokens")
                 for case in cases if case.batch == 1]
    asked = set(filter(None, options.peers.split(",")))
    peers = [peer for peer in PEERS if peer in asked | {"ours"} | ({"ordered"} if backward else set())]
    if not options.vicinal or not cases or asked - PEERS.keys() or min(options.rounds, options.repeat) < 1:
        parser.error("it takes --vicinal PATH, a case, peers of cudnn, fa2 and flex, and a round or more")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        print(launches(options, Path(folder)) if options.launch else measure(options, cases, peers, Path(folder)), end="")


if __name__ == "__main__":
    main()
