"""What `korch server` says of options that cannot be, before it opens anything."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from korch.cmd.server import server


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--audit-policy-file=missing.yaml"], 'Error: loading audit policy file: failed to read file path "missing.yaml": No such file'),
        (["--audit-policy-file=bad.yaml", "--audit-log-path=-"], "Error: loading audit policy file: loaded illegal policy with 0 rules"),
        (["--audit-log-path=-"], "Error: --audit-log-path does nothing without --audit-policy-file"),
        (["--audit-log-maxage=-1"], "Error: --audit-log-maxage -1 can't be negative number"),
        (["--request-timeout=soon"], 'Error: --request-timeout: time: invalid duration "soon"'),
    ],
)
def test_a_bad_option_is_named_and_nothing_is_made(
    arguments: list[str], says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bad.yaml").write_text("apiVersion: audit.k8s.io/v1\nkind: Policy\nrules: []\n")
    done = CliRunner().invoke(server, [*arguments, "--data-dir", str(tmp_path / "data")])
    assert done.exit_code != 0
    assert says in done.output
    assert not (tmp_path / "data").exists()
