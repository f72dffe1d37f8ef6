"""Templates, one for each number of vCPUs: made in the background, given to starts, replaced once.

A start never waits for one: `take` answers at once, and what is missing is made meanwhile.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from enum import StrEnum

from app.core.errors import SlipwayError
from app.core.ids import new_vm_id
from app.domain.sizing import BASE_MEMORY_BYTES
from app.domain.vm import VmEndReason
from app.guest.agent import Agent
from app.guest.channel import GuestChannel
from app.guest.image import GuestImage
from app.hypervisor.port import Hypervisor, Template, Vm, VmSpec

KEPT_TEMPLATES = 3  # beyond it the one that was asked for longest ago goes
BUILD_ATTEMPTS = 3
REBUILDS = 1  # of a template that turned out to be damaged
FIRST_RETRY_S = 5.0
TEMPLATE_LABEL = "template"
STOP_GRACE_S = 2.0

logger = logging.getLogger(__name__)


class TemplateState(StrEnum):
    """Whether clones can be made."""

    BUILDING = "building"
    READY = "ready"
    FAILED = "failed"  # given up until the next engine; starts boot


@dataclass(frozen=True)
class TemplateView:
    """A template as shown; `reason` says why it failed, or why it is made again."""

    vcpus: int
    state: TemplateState
    reason: str = ""
    memory_used_bytes: int = 0


OnFailure = Callable[[TemplateView], Awaitable[None]]


@dataclass
class _Place:
    """What the shelf knows of one number of vCPUs."""

    view: TemplateView
    template: Template | None = None
    is_proven: bool = False  # an agent of one of its clones has answered
    rebuilds: int = 0


class TemplateShelf:
    """Holds the templates; `run` is one task of the engine's, and all building is done in it.

    Args:
        hypervisor: Makes, saves and regains them.
        guest: What they boot.
        boot_timeout_s: How long a guest may take until its agent answers.
        on_failure: Told of every build that failed and every template that was dropped.
        usual_vcpus: Made without being asked for.
        is_off: There shall be none: starts boot.
    """

    def __init__(
        self,
        hypervisor: Hypervisor,
        guest: GuestImage,
        *,
        boot_timeout_s: float,
        on_failure: OnFailure,
        usual_vcpus: int | None = None,
        is_off: bool = False,
    ) -> None:
        self._hypervisor = hypervisor
        self._guest = guest
        self._boot_timeout_s = boot_timeout_s
        self._on_failure = on_failure
        self._usual_vcpus = usual_vcpus
        self._is_off = is_off or not hypervisor.capabilities.snapshot
        self._places: dict[int, _Place] = {}  # in the order in which they were last asked for
        self._wanted = asyncio.Event()

    def views(self) -> tuple[TemplateView, ...]:
        """All that are there, made or given up."""
        return tuple(place.view for place in self._places.values())

    def take(self, vcpus: int) -> Template | None:
        """The template for a clone; None if there is none now, and then it is made meanwhile."""
        if self._is_off:
            return None
        place = self._places.pop(vcpus, None)
        if place is None:
            place = _Place(TemplateView(vcpus, TemplateState.BUILDING))
            self._wanted.set()
        self._places[vcpus] = place
        return place.template

    def clone_answered(self, vcpus: int) -> None:
        """The agent of a clone is there: what the template holds is good."""
        if (place := self._places.get(vcpus)) is not None and place.template is not None:
            place.is_proven = True

    async def clone_was_silent(self, vcpus: int, error: SlipwayError) -> None:
        """The agent of a clone never answered: drop a template of which none ever did.

        With one that is proven it is the host that is too busy, or that clone's own fault.
        """
        place = self._places.get(vcpus)
        if place is not None and place.template is not None and not place.is_proven:
            await self.drop(place.template, error)

    async def drop(self, template: Template, error: SlipwayError) -> None:
        """A clone found it damaged: let it go and make it again, once."""
        place = next((one for one in self._places.values() if one.template is template), None)
        if place is None:
            return  # another start has said so before
        place.template = None
        place.rebuilds += 1
        given_up = place.rebuilds > REBUILDS
        state = TemplateState.FAILED if given_up else TemplateState.BUILDING
        place.view = TemplateView(place.view.vcpus, state, error.message)
        self._wanted.set()
        await template.close()
        await self._on_failure(place.view)

    async def run(self) -> None:
        """Regain what an earlier engine's clones hold, then make what is wanted, until cancelled.

        All templates are let go at its end.
        """
        try:
            await self._regain()
            if self._usual_vcpus is not None:
                self.take(self._usual_vcpus)
            while True:
                await self._wanted.wait()
                self._wanted.clear()
                await self._let_surplus_go()
                for vcpus, place in list(self._places.items()):
                    if place.view.state is TemplateState.BUILDING:
                        await self._build_with_patience(vcpus, place)
        finally:
            for place in self._places.values():
                if place.template is not None:
                    await place.template.close()
            self._places.clear()

    async def _regain(self) -> None:
        if self._is_off:
            return
        try:
            regained = await self._hypervisor.regain_templates()
        except SlipwayError as error:  # they are made anew
            logger.warning("Templates of an earlier engine: %s", error.message)
            return
        for template in regained:
            place = self._places.get(template.spec.vcpus)
            if place is not None and place.template is not None:
                await template.close()
                continue
            self._put(_Place(TemplateView(template.spec.vcpus, TemplateState.READY)), template)

    def _put(self, place: _Place, template: Template) -> None:
        place.template = template
        place.is_proven = False
        place.view = replace(
            place.view,
            state=TemplateState.READY,
            reason="",
            memory_used_bytes=template.memory_used_bytes,
        )
        self._places[place.view.vcpus] = place

    async def _let_surplus_go(self) -> None:
        while len(self._places) > KEPT_TEMPLATES:
            oldest = self._places.pop(next(iter(self._places)))
            if oldest.template is not None:
                await oldest.template.close()

    async def _build_with_patience(self, vcpus: int, place: _Place) -> None:
        delay_s = FIRST_RETRY_S
        for attempt in range(1, BUILD_ATTEMPTS + 1):
            try:
                self._put(place, await self._build(vcpus))
            except SlipwayError as error:
                is_last = attempt == BUILD_ATTEMPTS
                state = TemplateState.FAILED if is_last else TemplateState.BUILDING
                place.view = TemplateView(vcpus, state, error.message)
                logger.warning("Template of %d vCPUs: %s", vcpus, error.message)
                await self._on_failure(place.view)
                if is_last:
                    return
                await asyncio.sleep(delay_s)
                delay_s *= 2
            else:
                return

    async def _build(self, vcpus: int) -> Template:
        vm = await self._hypervisor.create(
            VmSpec(
                id=new_vm_id(),
                vcpus=vcpus,
                memory_bytes=BASE_MEMORY_BYTES,
                kernel=self._guest.kernel,
                initrd=self._guest.initrd,
                cmdline=self._guest.cmdline,
                disks=(),
                labels={TEMPLATE_LABEL: str(vcpus)},
                for_template=True,
            )
        )
        try:
            await self._make_ready(vm)
        except BaseException:
            await vm.stop(VmEndReason.STOPPED, grace_s=STOP_GRACE_S)
            await vm.discard()
            raise
        return await self._hypervisor.save_template(vm)

    async def _make_ready(self, vm: Vm) -> None:
        """Ask the agent to be ready for being saved; its channel is closed afterwards."""
        channel = GuestChannel(vm.open_channel, name=vm.spec.id)
        running = asyncio.create_task(channel.run())  # its faults reach whoever waits on it
        try:
            await channel.connected(self._boot_timeout_s)
            await Agent(channel).quiesce()
        finally:
            running.cancel()
            await asyncio.wait({running})
