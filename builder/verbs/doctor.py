"""Look at this machine: versions, threads, memory, disk, speed; exits 1 if something is wrong."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from builder.verbs.train import device_argument


def configure(parser: ArgumentParser) -> None:
    device_argument(parser)


def run(args: Namespace) -> int:
    from builder.devices import use_physical_cores
    from builder.doctor import examine
    from builder.training.runs import ROOT

    use_physical_cores()
    faults = 0
    for sign in examine(ROOT, args.device):
        print(sign, flush=True)
        faults += bool(sign.fault)
    return 1 if faults else 0
