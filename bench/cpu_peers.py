#!/usr/bin/env python3
"""Times attention on the CPU in Vicinal and in PyTorch, in turns on one machine, and prints a table.

    python3 bench/cpu_peers.py --vicinal build/release/cli/vicinal
    python3 bench/cpu_peers.py --vicinal build/release/cli/vicinal --cases window --rounds 5 --json out.json
    python3 bench/cpu_peers.py --vicinal build/release/cli/vicinal --pass backward --threads 1

Needs PyTorch (a CPU build will do). Peers are

  fused   scaled_dot_product_attention: causal by its argument, every other mask as a tensor of booleans
  flex    FlexAttention under torch.compile, whose first call is the compile time in the table; needs a C++ compiler

Each turn of a round times one program alone: ours is `vicinal bench`, a process of its own. Tensors are random normal
numbers, batch 1; a call starts with tensors ready and ends with the result. Block masks are made beforehand, as are our
plans of tiles. Milliseconds are the median of a turn's repetitions; the table has the median of the rounds and, in
brackets, the lowest and the highest of them: where these lie far apart the machine was not quiet.

With `--pass backward` a call is a forward pass and the gradients of Q, K and V after it: ours are two turns, whose
medians are added; what it reaches of the peak is the backward pass' alone. FlexAttention has no gradients on a CPU.
"""

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time

WINDOW = 256
CAP = 50.0

# name, spec, what PyTorch's fused attention takes: nothing, "causal", "mask" or None for what it has no argument for
CASES = [
    ("full", "attention t {}", ""),
    ("causal", "attention t {\n  mask = k <= q\n}", "causal"),
    ("window", f"attention t {{\n  mask = k <= q and q - k < {WINDOW}\n}}", "mask"),
    ("alibi", "attention t {\n  input s: float[heads]\n  score = score - s[h] * (q - k)\n  mask = k <= q\n}", None),
    ("softcap", f"attention t {{\n  score = {CAP} * tanh(score / {CAP})\n  mask = k <= q\n}}", None),
]


def kept_pairs(case, tokens):
    if case == "full":
        return tokens * tokens
    if case == "window":
        return sum(min(q + 1, WINDOW) for q in range(tokens))
    return tokens * (tokens + 1) // 2


def milliseconds(call, repeat):
    times = []
    for _ in range(repeat):
        start = time.perf_counter()
        call()
        times.append((time.perf_counter() - start) * 1e3)
    return statistics.median(times)


class Ours:
    def __init__(self, options, spec, dtype):
        self.file = tempfile.NamedTemporaryFile("w", suffix=".attn")
        self.file.write(spec + "\n")
        self.file.flush()
        shape = f"heads={options.heads},head_dim={options.dim},tokens={options.tokens}"
        self.command = [options.vicinal, "bench", self.file.name, "--backend", "cpu", "--dtype", dtype,
                        "--shape", shape, "--repeat", str(options.repeat), "--json"]
        self.environment = dict(os.environ, VICINAL_THREADS=str(options.threads))
        self.passes = ["forward", "backward"] if options.backward else ["forward"]
        self.compile_ms, self.of_peak = [], []

    def turn(self):
        milliseconds = 0
        for name in self.passes:
            ran = subprocess.run([*self.command, "--pass", name], env=self.environment, check=True, capture_output=True)
            result = json.loads(ran.stdout)
            path, reason = ("gradient_path", "gradient_reason") if name == "backward" else ("path", "path_reason")
            if result[path] != "cpu/jit":
                sys.exit(f"no generated code: {result[reason]}")
            milliseconds += result[name]["median"]
        self.compile_ms.append(result["llvm_compile"]["median"])
        if "of_fma_peak" in result:
            self.of_peak.append(result["of_fma_peak"]["median"])
        return milliseconds


class Torch:
    """A peer's call, made when it is first needed."""

    def __init__(self, options, case, mask, dtype, flex):
        import torch
        self.torch, self.options, self.case, self.mask, self.flex = torch, options, case, mask, flex
        self.dtype = {"f32": torch.float32, "bf16": torch.bfloat16, "f16": torch.float16}[dtype]
        self.call, self.compile_ms = None, []

    def make(self):
        torch, o = self.torch, self.options
        torch.set_num_threads(o.threads)
        q, k, v, d_out = (torch.randn(1, o.heads, o.tokens, o.dim).to(self.dtype) for _ in range(4))
        if o.backward:
            for x in (q, k, v):
                x.requires_grad_()
        self.make_forward(q, k, v)
        if o.backward:
            forward = self.call
            self.call = lambda: torch.autograd.grad(forward(), (q, k, v), d_out)
            self.call()

    def make_forward(self, q, k, v):
        torch, o = self.torch, self.options
        if not self.flex:
            attention = torch.nn.functional.scaled_dot_product_attention
            if self.mask == "mask":
                at = torch.arange(o.tokens)
                distance = at[:, None] - at[None, :]
                kept = (distance >= 0) & (distance < WINDOW)
                self.call = lambda: attention(q, k, v, attn_mask=kept)
            else:
                self.call = lambda: attention(q, k, v, is_causal=self.mask == "causal")
            self.call()
            return
        from torch.nn.attention.flex_attention import create_block_mask, flex_attention
        slopes = torch.rand(o.heads) / 10

        def alibi(score, b, h, i, j):
            return score - slopes[h] * (i - j)

        def softcap(score, b, h, i, j):
            return CAP * torch.tanh(score / CAP)

        def causal(b, h, i, j):
            return i >= j

        def window(b, h, i, j):
            return (i >= j) & (i - j < WINDOW)

        predicate = {"full": None, "window": window}.get(self.case, causal)
        block_mask = None
        if predicate is not None:
            block_mask = create_block_mask(predicate, None, None, o.tokens, o.tokens, device="cpu")
        score = {"alibi": alibi, "softcap": softcap}.get(self.case)
        torch._dynamo.reset()  # or it stops compiling after some cases
        compiled = torch.compile(flex_attention)
        self.call = lambda: compiled(q, k, v, score_mod=score, block_mask=block_mask)
        start = time.perf_counter()
        self.call()
        self.compile_ms.append((time.perf_counter() - start) * 1e3)
        self.call()

    def turn(self):
        with self.torch.set_grad_enabled(self.options.backward):
            if self.call is None:
                self.make()
            return milliseconds(self.call, self.options.repeat)


def text_of(times):
    if not times:
        return "-"
    return f"{statistics.median(times):.1f} [{min(times):.1f}, {max(times):.1f}]"


def measure(options, name, spec, mask, dtype):
    programs = {"ours": Ours(options, spec, dtype)}
    if "fused" in options.peers and mask is not None:
        programs["fused"] = Torch(options, name, mask, dtype, False)
    if "flex" in options.peers:
        programs["flex"] = Torch(options, name, mask, dtype, True)
    times = {program: [] for program in programs}
    why = {}
    for _ in range(options.rounds):
        for program in list(programs):
            if program in why:
                continue
            try:
                times[program].append(programs[program].turn())
            except Exception as error:  # a peer that does not take a case has no column there
                if program == "ours":
                    raise
                why[program] = str(error).strip().splitlines()[0] if str(error).strip() else repr(error)
    return {"case": name, "dtype": dtype, "milliseconds": times, "refused": why,
            "compile_ms": {p: programs[p].compile_ms for p in programs},
            "of_fma_peak": programs["ours"].of_peak,
            "gflops_of_ours": (14 if options.backward else 4) * kept_pairs(name, options.tokens) * options.heads * options.dim
                              / statistics.median(times["ours"]) * 1e-6}


def ratio(row, peer):
    times = row["milliseconds"].get(peer)
    if not times:
        return "-"
    return f"{statistics.median(times) / statistics.median(row['milliseconds']['ours']):.2f}"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vicinal", default="vicinal", help="the command")
    parser.add_argument("--cases", default=",".join(name for name, _, _ in CASES))
    parser.add_argument("--dtypes", default="f32,bf16")
    parser.add_argument("--pass", dest="backward", type=lambda name: {"forward": False, "backward": True}[name],
                        default=False, metavar="forward|backward", help="with gradients or without")
    parser.add_argument("--peers", help="fused,flex; with gradients fused")
    parser.add_argument("--tokens", type=int, default=4096)
    parser.add_argument("--heads", type=int, default=4)
    parser.add_argument("--dim", type=int, default=64)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--repeat", type=int, default=7)
    parser.add_argument("--json", help="also write everything here")
    options = parser.parse_args()
    if options.peers is None:
        options.peers = "fused" if options.backward else "fused,flex"
    options.peers = options.peers.split(",") if options.peers else []
    try:
        import torch
        version = torch.__version__
    except ImportError:
        sys.exit("PyTorch is not installed here; what ours takes alone `vicinal bench --backend cpu` says")
    rows = [measure(options, name, spec, mask, dtype)
            for name, spec, mask in CASES if name in options.cases.split(",")
            for dtype in options.dtypes.split(",")]
    print(f"PyTorch {version}, {options.threads} threads, 1 x {options.heads} heads x {options.tokens} tokens x "
          f"{options.dim}, milliseconds of a {'forward and a backward' if options.backward else 'forward'} pass\n")
    print("| case | type | ours | of FMA peak | fused | flex | fused/ours | flex/ours | our compile | flex compile |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    for row in rows:
        times, compiles = row["milliseconds"], row["compile_ms"]
        peak = f"{statistics.median(row['of_fma_peak']):.0f}%" if row["of_fma_peak"] else "-"
        print(f"| {row['case']} | {row['dtype']} | {text_of(times['ours'])} | {peak} "
              f"| {text_of(times.get('fused'))} | {text_of(times.get('flex'))} "
              f"| {ratio(row, 'fused')} | {ratio(row, 'flex')} "
              f"| {statistics.median(compiles['ours']):.0f} "
              f"| {statistics.median(compiles['flex']) if compiles.get('flex') else math.nan:.0f} |")
    for row in rows:
        for peer, reason in row["refused"].items():
            print(f"{row['case']} {row['dtype']}: {peer} does not take it: {reason}")
    if options.json:
        with open(options.json, "w") as out:
            json.dump({"pytorch": version, "options": vars(options), "rows": rows}, out, indent=1)


if __name__ == "__main__":
    main()
