#!/usr/bin/env python3
"""Real jobs on a real Slurm of four nodes on this machine: arrays, tasks, preemption, requeueing, a
node that dies, a time limit. After each, every line has its answer, the one that an undisturbed run
gives. Prints TAP; skips where Slurm is not installed.

Usage: slurm.py EXECUTABLE

The cluster lives in a directory of its own, on ports that are free, with its own key, and goes away
with the test. Cases run side by side.
"""

import concurrent.futures
import glob
import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[1]
DAEMONS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "scontrol")
SECONDS_MAX = 240
RESTARTS_MAX = 9
N_PROMPTS = 48
# Slow enough to be disturbed, and without surprises: one token a step.
SLOW = ["--threads", "1", "--cache", "none", "--threshold", "0", "--gen-length", "48",
        "--no-early-stop", "--window", "8", "--flush-every", "0.1"]

CONFIG = """ClusterName=dllmtest
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={dir}/run/munge.sock
StateSaveLocation={dir}/state
SlurmdSpoolDir={dir}/spool/%n
SlurmctldPidFile={dir}/run/slurmctld.pid
SlurmdPidFile={dir}/run/slurmd-%n.pid
SlurmctldLogFile={dir}/log/slurmctld.log
SlurmdLogFile={dir}/log/slurmd-%n.log
ProctrackType=proctrack/{tracking}
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
ReturnToService=2
SlurmdParameters=config_overrides
SlurmctldParameters=preempt_send_user_signal
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerType=sched/builtin
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
JobCompType=jobcomp/none
PropagateResourceLimits=NONE
SlurmctldTimeout=15
SlurmdTimeout=15
KillWait=5
MinJobAge=600
JobRequeue=1
RequeueExit=75
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
"""
NODES = ("NodeName=n[0-3] NodeHostname={host} NodeAddr=127.0.0.1 Port=[{ports[1]}-{ports[4]}] "
         "CPUs=8 RealMemory=1000 State=UNKNOWN\n"
         "PartitionName=low Nodes=ALL Default=YES MaxTime=INFINITE State=UP PriorityTier=1 "
         "GraceTime=5 PreemptMode=REQUEUE\n"
         "PartitionName=high Nodes=ALL MaxTime=INFINITE State=UP PriorityTier=10\n")


def free_ports():
    """Five in a row."""
    for first in range(20000 + os.getpid() % 5000 * 5, 60000, 5):
        sockets = [socket.socket() for _ in range(5)]
        try:
            for i, one in enumerate(sockets):
                one.bind(("127.0.0.1", first + i))
            return list(range(first, first + 5))
        except OSError:
            continue
        finally:
            for one in sockets:
                one.close()
    raise RuntimeError("no free ports")


class Cluster:
    def __init__(self, folder):
        self.dir = folder
        for name in ("state", "log", "run", "munge", *(f"spool/n{i}" for i in range(4))):
            os.makedirs(os.path.join(folder, name))
        os.chmod(folder, 0o755)
        os.chmod(os.path.join(folder, "munge"), 0o700)
        key = os.path.join(folder, "munge", "munge.key")
        with open(os.open(key, os.O_WRONLY | os.O_CREAT, 0o600), "wb") as file:
            file.write(os.urandom(1024))
        user = subprocess.run(["id", "-un"], capture_output=True, text=True, check=True)
        with open(os.path.join(folder, "slurm.conf"), "w", encoding="utf-8") as file:
            file.write((CONFIG + NODES).format(host=socket.gethostname().split(".")[0], dir=folder,
                                     ports=free_ports(), user=user.stdout.strip(),
                                     tracking="linuxproc" if os.geteuid() == 0 else "pgid"))
        self.environment = dict(os.environ, SLURM_CONF=os.path.join(folder, "slurm.conf"))
        self.environment.pop("DLLM_SHARD", None)

    def start(self):
        at = self.dir
        subprocess.run(["munged", f"--key-file={at}/munge/munge.key",
                        f"--socket={at}/run/munge.sock", f"--pid-file={at}/munge/munged.pid",
                        f"--log-file={at}/munge/munged.log",
                        f"--seed-file={at}/munge/munged.seed"], check=True)
        subprocess.run(["slurmctld", "-c"], env=self.environment, check=True)
        time.sleep(1)
        for i in range(4):
            subprocess.run(["slurmd", "-c", "-N", f"n{i}"], env=self.environment, check=True)
        for _ in range(60):
            if set(self.run("sinfo", "-h", "-o", "%t").split()) == {"idle"}:
                return
            time.sleep(0.5)
        raise RuntimeError(f"nodes are not idle: {self.run('sinfo')}")

    def stop(self):
        subprocess.run(["scancel", "-u", str(os.geteuid())], env=self.environment, check=False)
        time.sleep(1)
        pids = []
        for path in (*glob.glob(f"{self.dir}/run/slurm*.pid"), f"{self.dir}/munge/munged.pid"):
            try:
                with open(path, encoding="utf-8") as file:
                    pids.append(int(file.read()))
                os.kill(pids[-1], signal.SIGTERM)
            except (OSError, ValueError):
                pass
        for _ in range(100):
            if not any(os.path.exists(f"/proc/{pid}") for pid in pids):
                return
            time.sleep(0.1)

    def kill_node(self, node, job):
        """At once and without a word: its daemon, the job's keepers, then all that the job runs."""
        with open(f"{self.dir}/run/slurmd-{node}.pid", encoding="utf-8") as file:
            os.kill(int(file.read()), signal.SIGKILL)
        keepers, others = [], []
        for path in glob.glob("/proc/[0-9]*"):
            try:
                with open(f"{path}/environ", "rb") as file:
                    facts = file.read().split(b"\0")
                with open(f"{path}/cmdline", "rb") as file:
                    title = file.read().decode("utf-8", "replace")
            except OSError:
                continue
            is_ours = f"SLURM_CONF={self.environment['SLURM_CONF']}".encode() in facts
            if title.startswith(f"slurmstepd: [{job}.") and is_ours:
                keepers.append(int(os.path.basename(path)))
            elif f"SLURM_JOB_ID={job}".encode() in facts and is_ours:
                others.append(int(os.path.basename(path)))
        for pid in keepers + others:
            os.kill(pid, signal.SIGKILL)

    def run(self, *command):
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True,
                              check=False)
        if done.returncode != 0:
            raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip()}")
        return done.stdout

    def submit(self, script, *options):
        return self.run("sbatch", "--parsable", *options, script).strip()

    def facts(self, job):
        text = self.run("scontrol", "show", "job", "-o", job)
        return [dict(word.split("=", 1) for word in line.split() if "=" in word)
                for line in text.splitlines() if line]

    def wait(self, job, what, seconds=SECONDS_MAX):
        """Until `what` holds for all tasks of the job; a requeued one is started at once."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            facts = self.facts(job)
            if facts and all(what(task) for task in facts):
                return facts
            for task in facts:
                if task["JobState"] == "PENDING" and task.get("Reason") == "BeginTime":
                    self.run("scontrol", "update", f"JobId={task['JobId']}", "StartTime=now")
            time.sleep(0.3)
        raise RuntimeError(f"job {job} is not there yet: {self.facts(job)}")


def is_over(task):
    return task["JobState"] in ("COMPLETED", "FAILED", "TIMEOUT", "CANCELLED", "NODE_FAIL")


def is_running(task):
    return task["JobState"] == "RUNNING"


class Bench:
    """What the cases share: the cluster, the program, the prompts, and the answers as they are."""

    def __init__(self, cluster, program, folder):
        self.cluster, self.program, self.folder = cluster, program, folder
        self.prompts = os.path.join(folder, "prompts.jsonl")
        with open(self.prompts, "w", encoding="utf-8") as file:
            for i in range(N_PROMPTS):
                line = {"id": f"p{i}", "prompt": f"Add {i} and {3 * i + 1}."}
                file.write(json.dumps(line) + "\n")
        self.expected = None

    def read(self, pattern):
        """The records by id, without what depends on the run; each exactly once."""
        found = {}
        for path in sorted(glob.glob(pattern)):
            with open(path, encoding="utf-8") as file:
                for line in file:
                    record = json.loads(line)
                    if "header" in record or "manifest" in record:
                        continue
                    record.pop("timing")
                    if record["id"] in found:
                        raise RuntimeError(f"{record['id']} is answered twice")
                    found[record["id"]] = record
        return found

    def command(self, name, *options):
        output = os.path.join(self.folder, f"{name}.jsonl")
        return " ".join([self.program, "run", *SLOW, *options, "-o", output, self.prompts])

    def script(self, name, *lines):
        path = os.path.join(self.folder, f"{name}.sh")
        with open(path, "w", encoding="utf-8") as file:
            file.write("\n".join(["#!/bin/bash", *lines, ""]))
        return path

    def submit(self, name, lines, *options):
        log = os.path.join(self.folder, f"{name}.%a.log" if "--array" in " ".join(options)
                           else f"{name}.log")
        return self.cluster.submit(self.script(name, *lines), "-o", log, "--open-mode=append",
                                   *options)

    def wait_for_answers(self, name, n):
        """Until so many answers are on disk, so that there is something to lose."""
        path = os.path.join(self.folder, f"{name}.jsonl")
        for _ in range(600):
            try:
                with open(path, encoding="utf-8") as file:
                    if sum(1 for line in file if '"id"' in line) >= n:
                        return
            except OSError:
                pass
            time.sleep(0.1)
        raise RuntimeError(f"{name}: no {n} answers came")

    def call(self, *words):
        done = subprocess.run([self.program, *words], capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise RuntimeError(f"{words[0]}: status {done.returncode}: {done.stderr[-400:]}")

    def check(self, name):
        found = self.read(os.path.join(self.folder, f"{name}*.jsonl"))
        if found != self.expected:
            missing = sorted(set(self.expected) - set(found))
            raise RuntimeError(f"{name}: {len(found)} of {len(self.expected)} answers, missing "
                               f"{missing[:5]}, or others than undisturbed")
        self.call("verify", *glob.glob(os.path.join(self.folder, f"{name}*.jsonl")), "--against",
                  self.prompts)


def start(bench, name, *options):
    """A job that is at work and has answers to lose."""
    job = bench.submit(name, ["srun " + bench.command(name), "exit $?"], "--requeue", *options)
    bench.cluster.wait(job, is_running)
    bench.wait_for_answers(name, 3)
    return job


def end_restarted(bench, name, job, n_most):
    """The job was requeued at least once, and completed."""
    facts = bench.cluster.wait(job, is_over)
    if not 1 <= int(facts[0]["Restarts"]) <= n_most or facts[0]["JobState"] != "COMPLETED":
        raise RuntimeError(f"{facts}")
    bench.check(name)


def case_array(bench):
    """an array of four tasks, merged"""
    job = bench.submit("array", ["srun " + bench.command("array")], "--array=0-3")
    bench.cluster.wait(job, is_over)
    n = len(glob.glob(os.path.join(bench.folder, "array.*-of-00004.jsonl")))
    if n != 4:
        raise RuntimeError(f"{n} shard files")
    bench.check("array")
    merged = os.path.join(bench.folder, "merged.jsonl")
    bench.call("merge", "-o", merged, *glob.glob(os.path.join(bench.folder, "array.*.jsonl")))
    if list(bench.read(merged).values()) != list(bench.expected.values()):
        raise RuntimeError("merged records are not those of one run in order")


def case_tasks(bench):
    """four tasks of one srun"""
    job = bench.submit("tasks", ["srun -n 4 " + bench.command("tasks")], "-n", "4")
    bench.cluster.wait(job, is_over)
    bench.check("tasks")


def case_batch(bench):
    """a batch script with four tasks but without srun does all the work"""
    job = bench.submit("batch", [bench.command("batch")], "-n", "4")
    bench.cluster.wait(job, is_over)
    if not os.path.exists(os.path.join(bench.folder, "batch.jsonl")):
        raise RuntimeError("no unsharded output")
    bench.check("batch")


def case_requeue_exit(bench):
    """a signal, exit status 75, RequeueExit=75"""
    job = start(bench, "requeue")
    bench.cluster.run("scancel", "-s", "USR1", job)
    end_restarted(bench, "requeue", job, 1)


def case_preemption(bench):
    """preemption with requeueing"""
    job = start(bench, "preempt", "-w", "n3", "--exclusive")
    other = bench.submit("other", ["sleep 2"], "-p", "high", "-w", "n3", "--exclusive")
    bench.cluster.wait(other, is_over)
    end_restarted(bench, "preempt", job, RESTARTS_MAX)


def case_time_limit(bench):
    """a time limit: the signal before it, then the same line again"""
    lines = ["srun " + bench.command("limit"), "exit $?"]
    job = bench.submit("limit", lines, "-t", "1", "--signal=USR1@57", "--no-requeue")
    bench.cluster.wait(job, is_over)
    job = bench.submit("limit", lines)
    bench.cluster.wait(job, is_over)
    bench.check("limit")


def case_node(bench):
    """a node that dies with its job"""
    job = start(bench, "node", "-w", "n2", "--exclusive")
    bench.cluster.kill_node("n2", job)
    time.sleep(1)
    bench.cluster.wait(job, lambda task: task["JobState"] != "RUNNING", 120)
    subprocess.run(["slurmd", "-c", "-N", "n2"], env=bench.cluster.environment, check=True)
    end_restarted(bench, "node", job, RESTARTS_MAX)


CASES = [case_node, case_time_limit, case_preemption, case_requeue_exit, case_array, case_tasks,
         case_batch]


def run_case(bench, case):
    try:
        case(bench)
        return None
    except Exception as problem:  # the other cases go on
        return f"{type(problem).__name__}: {problem}"


def main():
    program = os.path.abspath(sys.argv[1])
    missing = [name for name in DAEMONS if shutil.which(name) is None]
    if missing:
        print(f"1..0 # SKIP Slurm is not installed ({missing[0]} is missing)")
        return 0
    n_failed = 0
    with tempfile.TemporaryDirectory(prefix="dllm-slurm-",
                                     ignore_cleanup_errors=True) as folder:
        os.chmod(folder, 0o755)
        cluster = Cluster(os.path.join(folder, "cluster"))
        bench = Bench(cluster, program, folder)
        try:
            cluster.start()
            subprocess.run(bench.command("alone").split(), check=True, capture_output=True)
            alone = bench.read(os.path.join(folder, "alone.jsonl"))
            bench.expected = dict(sorted(alone.items(), key=lambda item: item[1]["index"]))
            with concurrent.futures.ThreadPoolExecutor(len(CASES)) as pool:
                results = list(pool.map(lambda case: run_case(bench, case), CASES))
        finally:
            cluster.stop()
        for i, (case, problem) in enumerate(zip(CASES, results), 1):
            print(f"{'not ok' if problem else 'ok'} {i} - {case.__doc__}")
            for line in str(problem).splitlines() if problem else ():
                print(f"# {line}")
            n_failed += problem is not None
    print(f"1..{len(CASES)}")
    return n_failed > 0


if __name__ == "__main__":
    sys.exit(main())
