"""Names for containers that were given none: an adjective and a boat."""

from collections.abc import Callable

_QUALITIES = (
    "able amber bold brisk calm clear cobalt crisp daring eager fair fleet gentle golden grand "
    "hardy jolly keen lively lucky mellow merry nimble noble patient placid proud quick quiet "
    "ready silver sleek snug sound steady sturdy sunny swift tidy trusty upright vivid wary "
    "windward zesty"
).split()
_BOATS = (
    "barge bark brig canoe caravel carrack catboat clipper cog coracle cutter dhow dinghy dory "
    "felucca ferry frigate galleon galley gig hooker hoy hulk junk kayak ketch lighter longship "
    "lugger pinnace pontoon punt schooner scow skiff sloop smack tender trawler tug wherry "
    "xebec yawl"
).split()


def random_name(choose: Callable[[int], int], *, attempt: int) -> str:
    """A name such as `brisk_ketch`; from the fourth attempt on a number is added against clashes.

    Args:
        choose: Gives a number from 0 up to but without its argument.
        attempt: How many names have been found taken before.
    """
    name = f"{_QUALITIES[choose(len(_QUALITIES))]}_{_BOATS[choose(len(_BOATS))]}"
    return name if attempt < 3 else f"{name}{choose(10**attempt)}"
