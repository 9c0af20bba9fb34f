"""Several ranks of one command in processes of their own; what each returns or raises."""

import multiprocessing
import os
import socket
import subprocess
import traceback

import commands

CONTEXT = multiprocessing.get_context("forkserver")
# All tests have one server, which loads once what its processes need: imported by each of them,
# Lightning takes seconds.
CONTEXT.set_forkserver_preload(
    ["fsasd.store.store", "fsasd.runtime.processes", "lightning.pytorch", "pytest"]
)

LAUNCHERS = ("torchrun", "slurm", "by hand")


def environment(launcher, rank, port, ranks=2):
    """Return the variables that a launcher sets for one of its processes."""
    address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    if launcher == "torchrun":
        several = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": ranks}
        return address | _text(several) | {"TORCHELASTIC_RUN_ID": "none"}
    if launcher == "slurm":
        several = {
            "SLURM_PROCID": rank, "SLURM_LOCALID": rank, "SLURM_NTASKS": ranks,
            "SLURM_NTASKS_PER_NODE": ranks, "SLURM_JOB_ID": port, "SLURM_STEP_ID": 0,
            "SLURM_NODELIST": "127.0.0.1", "SLURM_NODEID": 0, "SLURM_JOB_NAME": "fsasd",
        }  # fmt: skip
        return _text(several)
    return address | _text({"NODE_RANK": rank, "WORLD_SIZE": ranks})


def _text(variables):
    return {name: str(value) for name, value in variables.items()}


def free_port():
    """Return a port that is free, as is the one from which fsasd's is counted."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    return 20_000 + port % 10_000


def start(work, *args, ranks=2, launcher="by hand", port=None):
    """Start ``work(rank, *args)`` on each rank.

    Returns:
        The processes, and a queue of (rank, what it returned or the text of its error).
    """
    results, port = CONTEXT.Queue(), port or free_port()
    processes = [
        CONTEXT.Process(
            target=_run, args=(work, rank, args, environment(launcher, rank, port, ranks), results)
        )
        for rank in range(ranks)
    ]
    for process in processes:
        process.start()
    return processes, results


def run(work, *args, seconds=180, **options):
    """Run ``work`` on each rank to its end, and return the exit codes and the sorted results."""
    processes, results = start(work, *args, **options)
    for process in processes:
        process.join(seconds)
        if process.is_alive():
            process.kill()
    received = []
    while not results.empty():
        received.append(results.get())
    return [process.exitcode for process in processes], sorted(received)


def run_command(arguments, ranks=2, **options):
    """Run a command on each rank, as torchrun does; return what they write, or fail with it.

    A rank that Lightning starts itself takes as long as its imports.
    """
    port = free_port()
    processes = [
        commands.start(
            arguments, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            env=os.environ | environment("torchrun", rank, port, ranks), **options,
        )
        for rank in range(ranks)
    ]  # fmt: skip
    try:
        output = [process.communicate(timeout=300)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0] * ranks, output
    return "".join(output)


def _run(work, rank, args, variables, results):
    # Of the process that has started this one, which may have been a rank itself.
    os.environ.pop("FSASD_RANKS", None)
    os.environ.update(variables)
    try:
        result = work(rank, *args)
    except Exception as error:
        traceback.print_exc()
        result = str(error)
    results.put((rank, result))
    # What is registered for the end of the interpreter, which such a process does not call.
    import atexit

    atexit._run_exitfuncs()
