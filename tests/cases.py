"""Runs the cases of a test in Python: functions whose first line of documentation is the sentence
that they prove. Prints TAP."""

import os
import pathlib
import subprocess
import sys
import tempfile


# What a launcher of these tests may have set, and the program would take for its shard.
LAUNCHERS = ("DLLM_", "SLURM_", "JOB_COMPLETION", "AWS_BATCH", "BATCH_TASK", "SGE_TASK", "LSB_",
             "FLUX_", "OMPI_", "PMI_", "MV2_", "PARALLEL_SEQ", "RANK", "WORLD_SIZE")


def outside_of_jobs():
    """The environment without what launchers set."""
    return {k: v for k, v in os.environ.items() if not k.startswith(LAUNCHERS)}


def run_cases(cases, program, *more):
    """Each case is called with the program, an empty folder and what is given besides. It fails by
    an exception, and is skipped if it returns a reason. Ends the test."""
    print(f"1..{len(cases)}")
    n_failed = 0
    for number, case in enumerate(cases, 1):
        problem, reason = None, None
        with tempfile.TemporaryDirectory(prefix="dllm-test-") as folder:
            try:
                reason = case(program, pathlib.Path(folder), *more)
            except (AssertionError, LookupError, OSError, StopIteration, TypeError, ValueError,
                    subprocess.SubprocessError) as failure:
                problem = failure
        skip = f" # SKIP {reason}" if reason else ""
        print(f"{'not ok' if problem else 'ok'} {number} - {case.__doc__}{skip}", flush=True)
        if problem is None:
            continue
        n_failed += 1
        frames, lines = problem.__traceback__.tb_next, []
        while frames:
            lines.append(str(frames.tb_lineno))
            frames = frames.tb_next
        print(f"# line {', '.join(lines)}: {problem!r}"[:2000])
    sys.exit(1 if n_failed else 0)
