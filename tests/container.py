#!/usr/bin/env python3
"""The Apptainer recipe: what it names exists, its scripts are scripts, and where apptainer is at
hand the image is built and its own test runs. Prints TAP.

Usage: container.py BUILD-FOLDER
"""

import json
import pathlib
import re
import shutil
import subprocess
import sys

from cases import run_cases

ROOT = pathlib.Path(__file__).resolve().parents[1]
RECIPE = ROOT / "tools" / "slurm" / "apptainer.recipe"
SECTIONS = {"files", "post", "runscript", "test", "labels"}
KEYS = {"Bootstrap", "From", "Stage"}


def read_stages():
    """[{key: value, "files from build": lines, ...}] of the recipe."""
    stages, section = [], None
    for line in RECIPE.read_text(encoding="utf-8").splitlines():
        if line.startswith("Bootstrap:"):
            stages.append({})
            section = None
        if not line.strip() or line.startswith("#"):
            continue
        if line.startswith("%"):
            section = line[1:].strip()
            assert section.split()[0] in SECTIONS, line
            stages[-1][section] = []
        elif section is None:
            key, value = line.split(": ")
            assert key in KEYS, line
            stages[-1][key] = value
        else:
            stages[-1][section].append(line)
    return stages


def stages_build_on_each_other(_build, _folder):
    """two stages of one pinned release: compiler and libraries, then libraries alone"""
    build, final = read_stages()
    tags = [stage["From"].split(":")[1] for stage in (build, final)]
    assert [stage["Bootstrap"] for stage in (build, final)] == ["docker", "docker"]
    assert tags[0] == tags[1].replace("-runtime-", "-devel-") != tags[1], tags
    assert re.match(r"\d+\.\d+\.\d+-", tags[0]), tags
    assert f"files from {build['Stage']}" in final and "files" in build
    major, minor = map(int, tags[0].split(".")[:2])
    assert (major, minor) >= (12, 4), "README asks for CUDA 12.4"


def scripts_are_scripts(_build, _folder):
    """every script section is accepted by a shell, and the build stops at its first failure"""
    build, final = read_stages()
    for text in (build["post"], final["runscript"], final["test"]):
        done = subprocess.run(["sh", "-n"], input="\n".join(text), text=True, check=False)
        assert done.returncode == 0, text
    assert build["post"][0].strip() == "set -e"
    used = re.findall(r"-D(\w+)=", " ".join(build["post"]))
    options = (ROOT / "meson_options.txt").read_text(encoding="utf-8")
    assert all(f"'{name}'" in options or name == "prefer_static" for name in used), used
    assert any("tools/setup run" in line for line in build["post"])


def what_is_copied_is_installed(build, _folder):
    """what the second stage takes is what meson installs"""
    done = subprocess.run(["meson", "introspect", "--installed", build], capture_output=True,
                          text=True, check=True)
    installed = ["/out" + path for path in json.loads(done.stdout).values()]
    for line in read_stages()[1]["files from build"]:
        source, target = line.split()
        assert source == "/out" + target, line
        assert any(path == source or path.startswith(source + "/") for path in installed), (
            source, installed)


def the_image_is_built(_build, folder):
    """the image is built, and its own test passes"""
    if shutil.which("apptainer") is None:
        return "apptainer is not installed"
    image = folder / "dllm-batch.sif"
    subprocess.run(["apptainer", "build", image, RECIPE], cwd=ROOT, check=True)
    subprocess.run(["apptainer", "test", image], check=True)
    return None


CASES = [stages_build_on_each_other, scripts_are_scripts, what_is_copied_is_installed,
         the_image_is_built]

if __name__ == "__main__":
    run_cases(CASES, pathlib.Path(sys.argv[1]))
