"""A stand-in for SLURM: its commands, which run jobs at once on this machine."""

import os
import sys
from pathlib import Path

COMMANDS = {
    "sbatch": """
import os, re, subprocess, sys
text = open(sys.argv[-1]).read()
options = dict(re.findall(r"#SBATCH --([\\w-]+)=(.*)", text))
first, last = re.match(r"(\\d+)-(\\d+)", options["array"]).groups()
folder, tasks = os.environ["SLURM_STAND_IN"], options["ntasks-per-node"]
open(f"{folder}/script", "w").write(text)
for number in range(int(first), int(last) + 1):
    environment = dict(
        os.environ, SLURM_JOB_ID=str(1000 + number), SLURM_ARRAY_JOB_ID="1000",
        SLURM_ARRAY_TASK_ID=str(number), SLURM_NTASKS=tasks, SLURM_NTASKS_PER_NODE=tasks,
        SLURM_JOB_NUM_NODES="1", SLURM_NNODES="1", SLURM_NODEID="0", SLURM_JOB_NAME="run",
        SLURM_JOB_NODELIST="localhost", SLURM_NODELIST="localhost",
    )
    log = open(f"{folder}/log.{number}", "w")
    job = subprocess.Popen(["bash", sys.argv[-1]], env=environment, stdout=log, stderr=log)
    open(f"{folder}/1000_{number}", "w").write(str(job.pid))
print("Submitted batch job 1000")
""",
    "srun": """
import os, subprocess, sys
arguments, paths = sys.argv[1:], {}
while arguments[0].startswith("--"):
    option = arguments.pop(0)
    if option in ("--output", "--error"):
        paths[option] = arguments.pop(0)
own = {"%A": os.environ["SLURM_ARRAY_JOB_ID"], "%a": os.environ["SLURM_ARRAY_TASK_ID"]}
tasks = []
for number in range(int(os.environ["SLURM_NTASKS"])):
    files = []
    for path in (paths["--output"], paths["--error"]):
        for name, value in {**own, "%t": str(number)}.items():
            path = path.replace(name, value)
        files.append(open(path, "w"))
    environment = dict(os.environ, SLURM_PROCID=str(number), SLURM_LOCALID=str(number),
                       SLURM_STEP_ID="0")
    tasks.append(subprocess.Popen(arguments, env=environment, stdout=files[0], stderr=files[1]))
sys.exit(max(task.wait() for task in tasks))
""",
    "sacct": """
import os, pathlib
print("JobID|State|NodeList")
for job in pathlib.Path(os.environ["SLURM_STAND_IN"]).glob("1000_*"):
    status = pathlib.Path(f"/proc/{job.read_text()}/stat")
    runs = status.exists() and status.read_text().split()[2] != "Z"
    print(f"{job.name}|{'RUNNING' if runs else 'COMPLETED'}|localhost")
""",
    "scancel": "",
}


def install(folder: Path) -> dict[str, str]:
    """Write the commands into a folder; return the variables by which they are found."""
    commands = folder / "bin"
    commands.mkdir(parents=True)
    for name, source in COMMANDS.items():
        (commands / name).write_text(f"#!{sys.executable}\n{source}")
        (commands / name).chmod(0o755)
    return {"SLURM_STAND_IN": str(folder), "PATH": f"{commands}:{os.environ['PATH']}"}
