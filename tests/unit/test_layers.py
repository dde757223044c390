"""The house's laws: imports point downwards, and the package is cheap to import."""

import ast
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[2] / "tomogan_bluesky"

# The longest prefix of a module's name decides its layer.
LAYERS = {
    "": 0,
    "_version": 0,
    "errors": 0,
    "config": 0,
    "geometry": 0,
    "torch_environment": 0,
    "recon": 1,
    "models.base": 1,
    "models.deepening": 1,
    "models.discriminator": 1,
    "models.features": 1,
    "models.files": 1,
    "models.formats": 1,
    "models.generator": 1,
    "models.losses": 1,
    "models.mixed_scale": 1,
    "models.unet3d": 1,
    "models.uncertainty": 1,
    "models.unets": 1,
    "intake": 2,
    "denoise": 2,
    "trust": 2,
    "models.artifact": 2,
    "models.card": 2,
    "models.registry": 2,
    "publish.documents": 2,
    "publish.identity": 2,
    "publish.volume_documents": 2,
    "publish.preview_documents": 2,
    "publish.volume_file": 2,
    "pipeline": 3,
    "worker": 3,
    "report": 3,
    "training": 3,
    "publish": 3,
    "run": 3,
    "run.processing": 4,
    "hosting": 4,
    "callback": 4,
    "replaying": 4,
    "serving": 4,
    "logs": 0,
    "metrics": 4,
    "bulk": 4,
    "training.trainer": 4,
    "sim": 4,
    "commands": 5,
    "cli": 5,
    "__main__": 5,
}
WITHOUT_TORCH = ("intake", "publish")
ARRAYS_ONLY = ("recon", "models", "denoise", "trust", "pipeline")
OF_DOCUMENTS = {"bluesky", "event_model", "tiled", "bluesky_tiled_plugins", "ophyd", "databroker"}

MODULES = {
    ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix("__init__").strip("."): (
        path
    )
    for path in sorted(PACKAGE.rglob("*.py"))
}


def layer(module: str) -> int:
    parts = module.split(".")
    for n in range(len(parts), 0, -1):
        if ".".join(parts[:n]) in LAYERS:
            return LAYERS[".".join(parts[:n])]
    raise AssertionError(f"{module}: say in LAYERS where it belongs")


def imports(module: str) -> set[str]:
    """Full names of all modules that a module imports, ours starting with a dot."""
    path = MODULES[module]
    package = module.split(".") if path.name == "__init__.py" else module.split(".")[:-1]
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            found.add(node.module)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1]
            target = [*base, *(node.module or "").split(".")]
            stem = ".".join(part for part in target if part)
            for alias in node.names:
                longer = f"{stem}.{alias.name}".strip(".")
                found.add("." + (longer if longer in MODULES else stem))
    return found


@pytest.mark.parametrize("module", [m for m in MODULES if m])
def test_imports_point_downwards(module):
    for name in imports(module):
        if name.startswith("."):
            assert layer(name[1:]) <= layer(module), f"{module} imports {name[1:]}, which is above"


@pytest.mark.parametrize("module", [m for m in MODULES if m.split(".")[0] in WITHOUT_TORCH])
def test_intake_and_publish_never_import_torch(module):
    assert not any(name.split(".")[0] == "torch" for name in imports(module))


@pytest.mark.parametrize("module", [m for m in MODULES if m.split(".")[0] in ARRAYS_ONLY])
def test_numerics_never_see_documents(module):
    assert not {name.split(".")[0] for name in imports(module)} & OF_DOCUMENTS


def test_worker_knows_nothing_of_tomography():
    ours = {n for m in MODULES if m.startswith("worker.") for n in imports(m) if n.startswith(".")}
    assert all(name.startswith(".worker") for name in ours)


def loaded_by(statement: str) -> set[str]:
    code = f"import sys; {statement}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_importing_the_package_leaves_torch_out():
    assert not loaded_by("import tomogan_bluesky") & {"torch", "bluesky", "tiled", "h5py"}


def test_a_callback_with_a_process_leaves_torch_and_writing_to_tiled_to_it():
    made = "from tomogan_bluesky import TomoGANCallback as C; C([print, 'http://127.0.0.1:9'])"
    assert not loaded_by(made) & {"torch", "bluesky_tiled_plugins"}


@pytest.mark.parametrize("module", [m for m in MODULES if m])
def test_what_writes_to_tiled_is_loaded_by_who_writes(module):
    """It brings seconds of imports with it."""
    at_once = ast.parse(MODULES[module].read_text()).body
    found = {
        alias.name
        for node in at_once
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in [*node.names, ast.alias(getattr(node, "module", None) or "")]
    }
    writers = {"bluesky_tiled_plugins", "tiled_publisher", "volume_writer"}
    if module not in ("publish.tiled_publisher", "publish.volume_writer"):
        assert not {part for name in found for part in name.split(".")} & writers


def test_help_leaves_torch_out():
    assert "torch" not in loaded_by("import tomogan_bluesky.cli as c; c.make_parser()")


def test_public_names_are_there_and_no_module_hides_them():
    import tomogan_bluesky

    for name in tomogan_bluesky.__all__ * 2:  # a module of that name would be found the second time
        found = getattr(tomogan_bluesky, name)
        assert found is not None
        assert not inspect.ismodule(found)
