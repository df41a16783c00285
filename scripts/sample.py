"""What `make up` ends with: a running cluster, the sample application in it, and one answer fetched through its Service."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

BIN = Path(sys.executable).parent
TOP = Path(__file__).resolve().parent.parent
_READY_TIMEOUT_S = 120


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-dir", required=True)
    parser.add_argument("--bind", required=True)
    parser.add_argument("--nodes", type=int, required=True, help="0: simulated nodes")
    options = parser.parse_args()
    state = status(options.data_dir)
    if not state["ready"]:
        nodes = ["--nodes", str(options.nodes)] if options.nodes else ["--sim-nodes", "3"]
        if not options.nodes:
            print("Not root: containers need it, so this cluster has three simulated nodes; nothing answers behind its Services.")
        subprocess.run([BIN / "korch", "up", "--detach", "--data-dir", options.data_dir, "--bind", options.bind, *nodes], check=True)
        state = status(options.data_dir)
    kubectl(state, "apply", "-f", str(TOP / "examples" / "hello.yaml"))
    kubectl(state, "rollout", "status", "deployment/hello", f"--timeout={_READY_TIMEOUT_S}s")
    if options.nodes:
        address = kubectl(state, "get", "service", "hello", "-o", "jsonpath={.spec.clusterIP}")
        print(f"http://{address}/ answers: {fetch(f'http://{address}/').strip()}")
    print(f"""
The cluster is ready. Next:
  export KUBECONFIG={state["kubeconfig"]}
  export PATH={BIN}:$PATH
  kubectl get pods -A
  korch status --data-dir {options.data_dir}
  make down""")


def status(data_dir: str) -> dict:
    """Return `korch status -o json` of the cluster in `data_dir`."""
    done = subprocess.run([BIN / "korch", "status", "--data-dir", data_dir, "-o", "json"], capture_output=True, text=True, check=False)
    return json.loads(done.stdout)


def kubectl(state: dict, *arguments: str) -> str:
    """Run the real kubectl against the cluster, show what it says, and return it."""
    environment = {**os.environ, "KUBECONFIG": state["kubeconfig"]}
    done = subprocess.run([BIN / "kubectl", *arguments], env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        sys.exit(f"kubectl {' '.join(arguments)}: {done.stderr.strip()}")
    if arguments[0] != "get":
        print(done.stdout.strip())
    return done.stdout


def fetch(url: str) -> str:
    """Return the page at `url`, waiting until the Service's rules are in the kernel."""
    deadline = time.monotonic() + 20
    while True:
        try:
            with urllib.request.urlopen(url, timeout=2) as answer:
                return answer.read().decode()
        except (urllib.error.URLError, OSError) as error:
            if time.monotonic() > deadline:
                sys.exit(f"{url} does not answer: {error}")
            time.sleep(0.1)


if __name__ == "__main__":
    main()
