"""Builds wheels with maturin, and the program that goes into them.

maturin packs what is in ``data/scripts``; it does not build a second package. So the program is built here first.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import maturin

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
SCRIPTS = HERE / "data" / "scripts"
#: maturin looks for the directory also where it only reads the metadata.
SCRIPTS.mkdir(parents=True, exist_ok=True)

get_requires_for_build_wheel = maturin.get_requires_for_build_wheel
get_requires_for_build_editable = maturin.get_requires_for_build_editable
prepare_metadata_for_build_wheel = maturin.prepare_metadata_for_build_wheel
prepare_metadata_for_build_editable = maturin.prepare_metadata_for_build_editable


def build_wheel(wheel_directory, config_settings=None, metadata_directory=None):
    build_program()
    return maturin.build_wheel(wheel_directory, config_settings, metadata_directory)


def build_editable(wheel_directory, config_settings=None, metadata_directory=None):
    build_program()
    return maturin.build_editable(wheel_directory, config_settings, metadata_directory)


def build_sdist(sdist_directory, config_settings=None):
    raise RuntimeError("there are only wheels: a source distribution of this directory would lack the program, which is beside it")


def build_program():
    """Build the program and put it where maturin looks for scripts. ``CARGO_BUILD_TARGET`` cross-compiles, as for maturin."""
    command = ["cargo", "build", "--locked", "--profile", "dist", "--package", "mmconvert-cli", "--config", 'profile.dist.strip="symbols"']
    print("building the program:", " ".join(command), file=sys.stderr, flush=True)
    subprocess.run(command, cwd=ROOT, check=True)
    found = subprocess.run(["cargo", "metadata", "--no-deps", "--format-version=1"], cwd=ROOT, check=True, capture_output=True)
    built = Path(json.loads(found.stdout)["target_directory"], os.environ.get("CARGO_BUILD_TARGET", ""), "dist", "mmconvert")
    shutil.copy2(built, SCRIPTS / "mmconvert")


if __name__ == "__main__":
    build_program()
