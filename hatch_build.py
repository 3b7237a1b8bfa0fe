"""Compiles the native kernels when framecast is built or installed; without a compiler it goes on without.

The first of $CXX, c++, g++ and clang++ that works makes src/framecast/ops/native/framecast_native.so: the
kernels for any processor and, on x86-64, again for AVX2 and for AVX-512, chosen from when they are loaded.
"""

from __future__ import annotations

import os
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface
from packaging.tags import platform_tags

FOLDER = Path("src/framecast/ops/native")
LIBRARY = FOLDER / "framecast_native.so"
KERNELS = (
    "span_attention.cpp",
    "shifted_linear.cpp",
    "gated_conv.cpp",
    "causal_conv1d.cpp",
    "selective_scan.cpp",
    "selective_scan_backward.cpp",
    "token_sampling.cpp",
)
FLAGS = ["-std=c++17", "-O3", "-fPIC", "-fvisibility=hidden", "-ffp-contract=fast", "-pthread", "-w"]
INSTRUCTION_SETS = {
    "portable": [],
    "avx2": ["-mavx2", "-mfma"],
    "avx512": ["-mavx2", "-mfma", "-mavx512f", "-mavx512dq"],
}


class NativeKernels(BuildHookInterface):
    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        problem = "" if is_fresh(Path(self.root)) else build(Path(self.root))
        if problem:
            self.app.display_warning(f"framecast goes on without native kernels: {problem}")
            return
        build_data["artifacts"].append(LIBRARY.as_posix())
        build_data["pure_python"] = False
        # "linux", since nobody has checked what a "manylinux" tag promises.
        plain = (tag for tag in platform_tags() if not tag.startswith(("manylinux", "musllinux")))
        build_data["tag"] = f"py3-none-{next(plain)}"


def is_fresh(root: Path) -> bool:
    """Whether the library is newer than all that it is made of."""
    sources = [*(root / FOLDER).glob("*.cpp"), *(root / FOLDER).glob("*.h"), Path(__file__)]
    library = root / LIBRARY
    return library.exists() and library.stat().st_mtime >= max(path.stat().st_mtime for path in sources)


def build(root: Path) -> str:
    """Make the library with the first compiler that can; gives what is wrong, or nothing."""
    (root / LIBRARY).unlink(missing_ok=True)  # what other sources gave must not be shipped
    if sys.platform == "win32":
        return "they are not made for Windows yet"
    named = (os.environ.get("CXX", ""), "c++", "g++", "clang++")
    compilers = [shlex.split(name) for name in named if name and shutil.which(shlex.split(name)[0])]
    problem = "no C++ compiler was found (tried $CXX, c++, g++, clang++)"
    for compiler in compilers:
        problem = compile_and_link(compiler, root)
        if not problem:
            break
    return problem


def compile_and_link(compiler: list[str], root: Path) -> str:
    x86 = platform.machine().lower() in ("x86_64", "amd64")
    sets = list(INSTRUCTION_SETS) if x86 else ["portable"]
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(os.cpu_count()) as pool:

        def compiled(source: str, set_: str) -> tuple[str, str]:
            to = f"{folder}/{source}.{set_}.o"
            flags = [*FLAGS, f"-DFRAMECAST_SET={set_}", *INSTRUCTION_SETS[set_]]
            return to, run([*compiler, *flags, "-c", str(root / FOLDER / source), "-o", to])

        jobs = {set_: [pool.submit(compiled, source, set_) for source in KERNELS] for set_ in sets}
        made = {set_: [job.result() for job in parts] for set_, parts in jobs.items()}
        # A compiler too old for an instruction set leaves it out.
        usable = [set_ for set_, parts in made.items() if not any(problem for _, problem in parts)]
        if "portable" not in usable:
            return next(problem for _, problem in made["portable"] if problem)
        objects = [to for set_ in usable for to, _ in made[set_]]
        offered = [f"-DFRAMECAST_{set_.upper()}" for set_ in usable]
        linked = f"{folder}/library.so"
        sources = [str(root / FOLDER / "library.cpp"), *objects]
        problem = run([*compiler, *FLAGS, *offered, "-shared", *sources, "-ldl", "-o", linked])
        if not problem:
            unfinished = root / LIBRARY.with_suffix(".unfinished")
            shutil.copy(linked, unfinished)
            unfinished.replace(root / LIBRARY)
        return problem


def run(command: list[str]) -> str:
    """The first line of what went wrong, or nothing."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    if done.returncode == 0:
        return ""
    return next((line for line in done.stderr.splitlines() if "error" in line), f"{command[0]} failed")
