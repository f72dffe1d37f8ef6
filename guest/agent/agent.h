/* What every build of the agent does once it has a channel. */
#ifndef SLIPWAY_AGENT_H
#define SLIPWAY_AGENT_H

#include <stdbool.h>

/* Signals and the loop. */
bool agent_init(void);
_Noreturn void agent_run(void);

#endif
