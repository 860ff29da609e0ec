"""Environments of their own for the libraries that do not go into ours.

Each sees what is installed beside the tests, so torch is there once; what it needs beyond that is
listed, because what these libraries say they need does not go together any more.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import sysconfig

import pytest
from tests.support.foreign import made_once

_PLOTS = (
    "contourpy==1.3.3",
    "cycler==0.12.1",
    "fonttools==4.68.0",
    "kiwisolver==1.5.1",
    "matplotlib==3.11.2",
    "pillow==13.0.0",
    "pyparsing==3.3.3",
    "python-dateutil==4.0.0",
    "six==1.17.0",
)

PACKAGES = {
    "catalyst": ("catalyst==22.4", "hydra-slayer==0.5.0", "tensorboardX==2.6.5"),
    "fastai": (
        "beartype==0.23.1",
        "fastai==2.8.12",
        "fastcore==2.2.39",
        "fastdownload==0.0.8",
        "fastprogress==1.0.5",
        "fasttransform==0.0.5",
        "pandas==3.1.1",
        "plum-dispatch==2.9.0",
        "pytz==2026.6",
        "tzdata==2026.6",
        *_PLOTS,
    ),
    "mmengine": (
        "addict==2.4.0",
        "mmengine==0.10.7",
        "opencv-python-headless==5.0.0.93",
        "platformdirs==4.14.7",
        "rich==15.0.0",
        "termcolor==3.3.0",
        "yapf==0.43.0",
        *_PLOTS,
    ),
}


def python_with(library):
    """The interpreter of the environment that has this library, made once on a machine.

    Without a package index the test is skipped, and fails in CI.
    """
    ours = sysconfig.get_path("purelib")
    content = "\n".join((sys.version, ours, *PACKAGES[library]))
    name = f"{library}-{hashlib.sha256(content.encode()).hexdigest()[:16]}"
    try:
        folder = made_once(name, lambda folder: _make(folder, PACKAGES[library], ours))
    except subprocess.CalledProcessError as error:
        reason = f"unable to install {library}: {error.stderr.strip().splitlines()[-1:]}"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    return str(folder / "bin" / "python")


def _make(folder, packages, ours):
    _run(sys.executable, "-m", "venv", folder)
    python = folder / "bin" / "python"
    _run(
        python, "-m", "pip", "install", "-q", "--disable-pip-version-check", "--no-deps", *packages
    )
    site = _run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip()
    with open(os.path.join(site, "beside.pth"), "w") as file:
        file.write(f"{ours}\n")


def _run(*command):
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=300).stdout
