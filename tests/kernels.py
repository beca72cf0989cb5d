"""What nvcc made of the kernels, without a GPU, as TAP.

    tests/kernels.py NVCC PROGRAM [--print]

Compiles each file of cuda/ for one architecture and reads the compiler's resource report and the
machine code (PTX where the toolkit lacks cuobjdump): kernels that decide the speed keep everything
in registers, those that multiply use tensor cores, blocks fit the shared memory of every supported
GPU, and the program itself needs no library of CUDA. --print shows the figures of all kernels.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
HOT = ["attend_tiles", "join_slices", "norm_wide", "gated_wide", "rotate", "feed", "choose",
       "embed_wide"]
ON_TENSOR_CORES = ["attend_tiles"]
STATIC_SHARED_MAX = 48 << 10  # bytes that a block may have without asking


def compile_kernels(nvcc, folder, source):
    """The object file, and one dict per kernel."""
    target = os.path.join(folder, os.path.basename(source) + ".o")
    done = subprocess.run(
        [nvcc, "-std=c++20", "-O3", "-I", os.path.join(ROOT, "src"), "-I", ROOT, "-arch=sm_90",
         '-DCUDA_TARGETS=""', "-Xptxas", "-v", "-c", source, "-o", target],
        capture_output=True, text=True, check=True)
    kernels = []
    for line in done.stderr.splitlines():
        if found := re.search(r"Compiling entry function '(\w+)'", line):
            kernels.append({"name": found.group(1), "file": os.path.basename(source)})
        elif found := re.search(r"(\d+) bytes stack frame, (\d+) bytes spill stores", line):
            kernels[-1].update(stack=int(found.group(1)), spill=int(found.group(2)))
        elif found := re.search(r"Used (\d+) registers", line):
            shared = re.search(r"(\d+) bytes smem", line)
            kernels[-1].update(registers=int(found.group(1)),
                               shared=int(shared.group(1)) if shared else 0)
    return target, kernels


def is_one_of(kernel, names):
    return any(re.search(rf"\d{name}(I|E|P|\d|v)", kernel["name"] + "v") for name in names)


def has_tensor_code(nvcc, target, source, name):
    """Looks at the machine code, or without cuobjdump at what the assembler was given."""
    tool = os.path.join(os.path.dirname(os.path.realpath(nvcc)), "cuobjdump")
    if os.path.exists(tool):
        mark, pattern = "HMMA", r"Function : (\w+)"
        text = subprocess.run([tool, "--dump-sass", target], capture_output=True, text=True,
                              check=True).stdout
    else:
        mark, pattern = "mma.sync", r"\.entry (\w+)\("
        subprocess.run([nvcc, "-std=c++20", "-I", os.path.join(ROOT, "src"), "-I", ROOT,
                        "-arch=sm_90", "-ptx", "-o", target + ".ptx", source], check=True)
        with open(target + ".ptx", encoding="utf-8") as file:
            text = file.read()
    parts = re.split(pattern, text)
    return any(mark in body for found, body in zip(parts[1::2], parts[2::2]) if found == name)


class Report:
    def __init__(self):
        self.n = self.n_failed = 0

    def line(self, ok, what, why=()):
        self.n += 1
        self.n_failed += not ok
        print(f"{'ok' if ok else 'not ok'} {self.n} - {what}")
        for text in () if ok else why:
            print(f"# {text}")


def main():
    nvcc, program = shutil.which(sys.argv[1]), sys.argv[2]
    report, kernels, tensor = Report(), [], {}
    with tempfile.TemporaryDirectory() as folder:
        for source in sorted(os.listdir(os.path.join(ROOT, "cuda"))):
            if not source.endswith(".cu") or source == "try.cu":
                continue
            target, found = compile_kernels(nvcc, folder, os.path.join(ROOT, "cuda", source))
            kernels += found
            for kernel in found:
                if is_one_of(kernel, ON_TENSOR_CORES):
                    tensor[kernel["name"]] = has_tensor_code(
                        nvcc, target, os.path.join(ROOT, "cuda", source), kernel["name"])
    for kernel in kernels if "--print" in sys.argv else []:
        print("# {file:14} {name:50} {registers:4} registers {shared:6} B shared {stack:4} B stack "
              "{spill:4} B spilled".format(**kernel))
    hot = [kernel for kernel in kernels if is_one_of(kernel, HOT)]
    missing = [name for name in HOT if not any(is_one_of(kernel, [name]) for kernel in kernels)]
    report.line(not missing, "every hot kernel is there", missing)
    spilled = [kernel["name"] for kernel in hot if kernel["spill"] > 0]
    report.line(not spilled, f"{len(hot)} hot kernels spill nothing", spilled)
    large = [kernel["name"] for kernel in kernels if kernel["shared"] > STATIC_SHARED_MAX]
    report.line(not large, f"{len(kernels)} kernels fit the shared memory of any GPU", large)
    scalar = [name for name, found in tensor.items() if not found]
    report.line(tensor and not scalar, "attention multiplies on tensor cores", scalar)
    needed = subprocess.run(["readelf", "-d", program], capture_output=True, text=True,
                            check=True).stdout
    cuda = re.findall(r"NEEDED.*\[(libcu\S+)\]", needed)
    report.line(not cuda, "the program needs no library of CUDA to start", cuda)
    print(f"1..{report.n}")
    return report.n_failed > 0


if __name__ == "__main__":
    sys.exit(main())
