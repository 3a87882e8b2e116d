"""What starts often, or many times over, loads no library that it does not use."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytestmark = pytest.mark.slow  # a new Python each

IMAGES = ("SimpleITK", "scipy.ndimage")
HEAVY = ("radiomics", "torch", "matplotlib", "pandas", "sklearn", "statsmodels", "scipy.stats", "xraylib")
# Among them: `osteonode --help`, a child before it knows its role, the listener, a worker before its first
# task, and the commands that read the store.
MODULES = {
    "node.cli": (*HEAVY, *IMAGES, "pydicom", "highdicom", "sqlalchemy", "celery"),
    "node.processes.child": (*HEAVY, *IMAGES, "pydicom", "highdicom", "sqlalchemy", "celery"),
    "node.processes.supervisor": (*HEAVY, *IMAGES, "pydicom", "highdicom", "celery"),
    "node.processes.listener": HEAVY,
    "node.processes.page": (*HEAVY, "highdicom"),
    "node.processes.worker": HEAVY,
    "node.pipeline.policy": (*HEAVY, *IMAGES, "pydicom", "highdicom"),
    "node.store.store": (*HEAVY, *IMAGES, "pydicom", "highdicom"),
    "node.commands.studies": (*HEAVY, *IMAGES, "highdicom", "celery"),
    "node.commands.phantom": (*HEAVY, "highdicom", "sqlalchemy", "celery"),
}


@pytest.mark.parametrize("module", MODULES)
def test_a_module_loads_no_library_that_it_does_not_use(module):
    code = f"import sys, {module}; print(*({{*{MODULES[module]!r}}} & {{*sys.modules}}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
