"""Versions that stand in two files are the same in both."""

import collections
import re

from helpers.processes import ROOT


def pinned(lines):
    """Return the pinned versions of each package, each with its marker."""
    versions = collections.defaultdict(set)
    for package, version in re.findall(r"^([\w.-]+)==([^#\n]+)", "\n".join(lines), re.MULTILINE):
        versions[package].add(version.strip().replace("'", '"'))
    return versions


def test_extras_are_what_the_tests_and_the_benchmark_install():
    extras = pinned(re.findall(r'"([\w.-]+==[^"]*)"', (ROOT / "pyproject.toml").read_text()))
    compared = set()
    for name in ("requirements-dev.txt", "requirements-bench.txt"):
        installed = pinned((ROOT / name).read_text().splitlines())
        for package in extras.keys() & installed.keys():
            assert extras[package] == installed[package], f"{name}: {package}"
            compared.add(package)
    assert compared == extras.keys() >= {"matplotlib", "onnxruntime", "torch"}
