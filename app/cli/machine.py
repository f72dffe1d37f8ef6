"""`slipway doctor`: what the machine lacks, and the cure."""

import argparse
import asyncio
import json

from app.cli.configuration import read_settings
from app.core.errors import SlipwayError
from app.guest.image import GuestImage, find_guest
from app.resources import guest_dir, needed_assets, static_dir
from app.services.doctor.checks import Finding, Verdict, examine
from app.services.doctor.facts import Facts, GuestFacts, Subject, gather
from app.settings import Settings

MARKS = {Verdict.OK: "ok     ", Verdict.WARNING: "warning", Verdict.FAULT: "FAULT  "}
EXIT_FAULT = 1


def add_commands(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `doctor`."""
    doctor = commands.add_parser(
        "doctor",
        help="check the machine: each prerequisite, and the cure for each fault",
        description="Checks each prerequisite; exit code 1 if there is a fault.",
    )
    doctor.add_argument("--json", action="store_true", help="print the findings as JSON")
    doctor.set_defaults(run=run_doctor)


def run_doctor(options: argparse.Namespace) -> int:
    """Look, judge, print; 1 if there is a fault."""
    findings = examine(asyncio.run(_gather(read_settings())))
    print(as_json(findings) if options.json else as_text(findings))
    return EXIT_FAULT if any(found.verdict is Verdict.FAULT for found in findings) else 0


async def _gather(settings: Settings) -> Facts:
    from app.main import build_hypervisor

    guest, fault = await asyncio.to_thread(_find_guest, settings)
    hypervisor = build_hypervisor(settings, guest)
    try:
        return await gather(
            Subject(
                data_dir=settings.data_dir,
                host=settings.host,
                port=settings.port,
                memory_reserve_bytes=settings.memory_reserve_bytes,
                default_memory_bytes=settings.default_memory_bytes,
                qemu_user=settings.qemu_user,
                docker_tcp=settings.docker_tcp,
                static_dir=static_dir(),
                assets=needed_assets(),
            ),
            hypervisor,
            GuestFacts(
                kernel_version=guest.kernel_version if guest else "",
                size_bytes=_size_bytes(guest) if guest else 0,
                fault=fault,
            ),
        )
    finally:
        await hypervisor.close()


def _find_guest(settings: Settings) -> tuple[GuestImage | None, str]:
    """The built guest, or None and why there is none."""
    try:
        guest = find_guest(
            guest_dir() / "slipway.yml",
            cache_dir=settings.data_dir / "guest",
            agent_source_dir=guest_dir() / "agent",
        )
    except SlipwayError as exc:
        return None, exc.message
    return guest, "" if guest else "not built for this version yet"


def _size_bytes(guest: GuestImage) -> int:
    return guest.kernel.stat().st_size + guest.initrd.stat().st_size


def as_json(findings: list[Finding]) -> str:
    """The findings as a document: `faults` counts, `findings` in the order of the checks."""
    document = {
        "faults": sum(finding.verdict is Verdict.FAULT for finding in findings),
        "findings": [
            {
                "check": finding.check,
                "verdict": finding.verdict.value,
                "text": finding.text,
                "cure": finding.cure,
            }
            for finding in findings
        ],
    }
    return json.dumps(document, indent=2)


def as_text(findings: list[Finding]) -> str:
    """The findings for people: one line each, the cure below what is not well."""
    width = max(len(finding.check) for finding in findings)
    lines = []
    for finding in findings:
        lines.append(f"{MARKS[finding.verdict]} {finding.check:<{width}}  {finding.text}")
        if finding.cure:
            lines.append(f"{'':>{width + 10}}> {finding.cure}")
    faults = sum(finding.verdict is Verdict.FAULT for finding in findings)
    lines.append("")
    lines.append("No faults." if not faults else f"{faults} fault{'s' if faults > 1 else ''}.")
    return "\n".join(lines)
