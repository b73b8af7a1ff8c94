"""Per network, side by side in one run: a training step here and in PyTorch eager.

    python benchmarks/networks.py [NAME ...]

Time: medians of interleaved steps at batch 1 on one thread, full update, SGD. Memory: all the SRAM
of the program on a Cortex-M7, and the growth of resident memory of a fresh PyTorch process over its
first training steps. Instructions: one training step on the emulated Cortex-M7. Nothing is
asserted.

Networks of millions of parameters are compiled with their large weights zero, which keeps tables of
initial values out of the C, and get the real ones before the first step. The flash shown counts the
tables all the same, the seconds to compile do not.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from rich.console import Console
from rich.table import Table
from tests.agreement.networks import BIG_M7, NARROW, NETWORKS, Network, data_folder

ROUNDS = 15
FULL = [Network(network.name, network.loss) for network in NARROW]
"""Those that the tests make narrow, as they are."""
BENCHED = [*(network for network in NETWORKS if network not in NARROW), *FULL]
HUGE_M7 = BIG_M7.model_copy(
    update={"name": "huge-m7", "sram_bytes": 384 * 1024**2, "flash_bytes": 128 * 1024**2}
)
LARGE = 1024
"""Elements from which on a weight of the full-size networks is zero while they are compiled."""

_TORCH_MEMORY = """
import json, resource, sys, torch
sys.path.insert(0, sys.argv[1])
from benchmarks.networks import BENCHED, torch_step
torch.set_num_threads(1)
network = next(n for n in BENCHED if n.name == sys.argv[2])
model, example = network.build()
step = torch_step(network, model, example)
pages = int(open("/proc/self/statm").read().split()[1])
before = pages * resource.getpagesize()
for _ in range(3):
    step()
print(json.dumps(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before))
"""


def torch_step(network: Network, model, example):
    """A closure that does one eager training step: forward, backward, SGD."""
    import torch

    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    with torch.no_grad():
        output = model(example)
    target = {
        "cross_entropy": torch.zeros(1, dtype=torch.long),
        "autoencoder": example,
    }.get(network.loss, torch.zeros_like(output))
    loss_of = {
        "cross_entropy": torch.nn.functional.cross_entropy,
        "autoencoder": torch.nn.functional.mse_loss,
        "bce_with_logits": torch.nn.functional.binary_cross_entropy_with_logits,
    }[network.loss]

    def step() -> None:
        optimizer.zero_grad()
        loss_of(model(example), target).backward()
        optimizer.step()

    return step


def compiled(network: Network, model, example):
    """The program, how many bytes of tables were left out of it, and a closure that gives a session
    its weights.
    """
    import numpy as np
    import torch

    import kilograd as kg

    full = network in FULL
    weights = {name: p.detach().numpy().copy() for name, p in model.named_parameters()}
    large = {name for name, array in weights.items() if full and array.size >= LARGE}
    with torch.no_grad():
        for name in large:
            model.get_parameter(name).zero_()
    program = kg.compile(
        model, example, device=HUGE_M7 if full else BIG_M7, loss=network.loss,
        optimizer=kg.SGD(lr=1e-3),
    )  # fmt: skip
    with torch.no_grad():
        for name in large:
            model.get_parameter(name).copy_(torch.from_numpy(weights[name]))
    missing = sum(v.type.bytes for v, t in program.train.graph.state.items() if not t.array.any())

    def fill(session) -> None:
        session.load_state_dict({name: np.asarray(weights[name]) for name in large})

    return program, missing, fill


def measure(network: Network) -> dict[str, float]:
    """All figures of one network."""
    import numpy as np
    import torch

    torch.set_num_threads(1)
    model, example = network.build()
    start = time.perf_counter()
    program, missing_bytes, fill = compiled(network, model, example)
    compile_seconds = time.perf_counter() - start
    host, board = program.on_host(), program.on_emulator()
    fill(host)
    fill(board)
    x = example.numpy()
    shape = program.ports.outputs[0].shape
    y = {"cross_entropy": 0, "autoencoder": None}.get(network.loss, np.zeros(shape, np.float32))
    board.train_step(x, y)
    theirs = torch_step(network, model, example)
    backend, sample, target = host._backend, host._samples(x)[0], host._targets(y, 1)[0]
    ours_seconds, theirs_seconds = [], []
    for _ in range(ROUNDS):
        for times, run in (
            (ours_seconds, lambda: backend.train_step(sample, target, 1e-3, 0)),
            (theirs_seconds, theirs),
        ):
            run()
            start = time.perf_counter()
            run()
            times.append(time.perf_counter() - start)
    grown = subprocess.run(
        [sys.executable, "-c", _TORCH_MEMORY, str(Path(__file__).parents[1]), network.name],
        capture_output=True,
        text=True,
        check=True,
    )
    return {
        "ours_ms": statistics.median(ours_seconds) * 1e3,
        "torch_ms": statistics.median(theirs_seconds) * 1e3,
        "ratio": statistics.median(
            t / o for o, t in zip(ours_seconds, theirs_seconds, strict=True)
        ),
        "sram_bytes": program.memory.sram_bytes,
        "arena_bytes": program.memory.arena_bytes,
        "state_bytes": program.memory.state_bytes,
        "flash_bytes": program.memory.flash_bytes + missing_bytes,
        "torch_bytes": json.loads(grown.stdout),
        "macs": program.macs.train_step,
        "instructions": board.instructions or 0,
        "compile_s": compile_seconds,
    }


def main() -> None:
    """Print the table."""
    wanted = sys.argv[1:]
    table = Table(
        "network", "step ms", "PyTorch ms", "faster", "SRAM KB", "PyTorch KB", "smaller", "M MACs",
        "M instr.", "instr./MAC", "flash KB", "compile s", title="one training step, batch "
        "1, all trained",
    )  # fmt: skip
    for network in BENCHED:
        if wanted and network.name not in wanted:
            continue
        if "weights" in network.options and not data_folder().is_dir():
            print(f"{network.name}: skipped, no data folder at {data_folder()}")
            continue
        row = measure(network)
        table.add_row(
            network.name,
            f"{row['ours_ms']:.2f}",
            f"{row['torch_ms']:.2f}",
            f"{row['ratio']:.1f}x",
            f"{row['sram_bytes'] / 1024:.0f}",
            f"{row['torch_bytes'] / 1024:.0f}",
            f"{row['torch_bytes'] / row['sram_bytes']:.0f}x",
            f"{row['macs'] / 1e6:.1f}",
            f"{row['instructions'] / 1e6:.1f}",
            f"{row['instructions'] / row['macs']:.2f}",
            f"{row['flash_bytes'] / 1024:.0f}",
            f"{row['compile_s']:.1f}",
        )
        print(json.dumps({"network": network.name, **row}), flush=True)
    Console(width=150).print(table)


if __name__ == "__main__":
    main()
