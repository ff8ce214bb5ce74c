"""The steps of the boot verification about what answers people and programs, and about systemd's units."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vessel.cli import check_services as services
from vessel.cli.check_seen import failed, passed, skipped
from vessel.cli.output import counted

if TYPE_CHECKING:
    from vessel.cli.check_seen import Plan, Seen, Step


def faces(plan: Plan, seen: Seen) -> list[Step]:
    """Ask each face; one that is not expected may be away."""
    found = []
    for service in services.of(plan.settings):
        expected = service.name in plan.expected
        answer = services.ask(service, plan.settings, alone=expected)
        if answer.ok:
            seen.faces[service.name] = answer.url
            found.append(passed(service.name, service.title, f"{answer.url} {answer.text}"))
        elif expected or not answer.refused:
            code = service.down if answer.refused else f"{service.name}_unhealthy"
            cure = _of_face(service, answer, seen)
            found.append(failed(service.name, service.title, f"{answer.url}: {answer.text}", code, cure))
        else:
            text = "does not run, and was not asked for (--expect)"
            found.append(skipped(service.name, service.title, text))
    return found


def _of_face(service: services.Service, answer: services.Answer, seen: Seen) -> str:
    """Say what to do about a face: what answers, and is not well, is not mended by starting it anew."""
    if answer.foreign:
        return seen.cures.foreign(service)
    if not answer.status:
        return seen.cures.face(service)
    causes = {"redis": "Redis is reached", "workers": "a worker is alive"}
    cause = next((causes[step.name] for step in seen.failed if step.name in causes), None)
    return f"nothing of its own: it is well again when {cause}" if cause else seen.cures.unwell(service)


def units(_plan: Plan, seen: Seen) -> list[Step]:
    """Look whether the units are active that the target starts."""
    name, title, found = "services", "Services", seen.installation
    if found is None:
        return []
    if found.fault:
        return [skipped(name, title, f"not known, as systemd does not tell ({found.fault})")]
    wrong = [unit for unit in found.units if not unit.well]
    if not wrong:
        return [passed(name, title, f"{counted(len(found.units), 'unit')} active")]
    text, waits = ", ".join(unit.text for unit in wrong), not any(unit.gave_up for unit in wrong)
    cure = seen.cures.services(wrong)
    told = cure in {step.cure for step in seen.failed}
    return [failed(name, title, text, "service_inactive", "as above" if told else cure, waits=waits)]
