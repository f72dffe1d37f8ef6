import json

from app.cli.machine import as_json, as_text
from app.services.doctor.checks import Finding, Verdict

FINDINGS = [
    Finding("system", Verdict.OK, "Debian GNU/Linux 12"),
    Finding("accelerator", Verdict.WARNING, "tcg: no /dev/kvm", "Switch it on."),
    Finding("guest", Verdict.FAULT, "not built", "slipway guest build"),
]


def test_text_has_a_line_per_check_and_the_cure_below() -> None:
    assert as_text(FINDINGS).splitlines() == [
        "ok      system       Debian GNU/Linux 12",
        "warning accelerator  tcg: no /dev/kvm",
        "                     > Switch it on.",
        "FAULT   guest        not built",
        "                     > slipway guest build",
        "",
        "1 fault.",
    ]


def test_text_without_faults_says_so() -> None:
    assert as_text(FINDINGS[:2]).endswith("No faults.")


def test_json_counts_faults_and_keeps_every_finding() -> None:
    document = json.loads(as_json(FINDINGS))
    assert document["faults"] == 1
    assert [each["check"] for each in document["findings"]] == ["system", "accelerator", "guest"]
    assert document["findings"][2]["cure"] == "slipway guest build"
