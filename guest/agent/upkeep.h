/* What the guest's kernel is told to do with its memory, and how it is made ready for being cloned. */
#ifndef SLIPWAY_UPKEEP_H
#define SLIPWAY_UPKEEP_H

#include <stdint.h>

/* Settings that hold from the boot on: no timer wakes an idle guest more often than it must. */
void upkeep_settings(void);
/* SET_CLOCK steps the next time, as it did the first. */
void guest_clock_forget(void);

/* RECLAIM in an open cgroup; answers the request, or returns an errno. */
int upkeep_reclaim(int cgroup, uint64_t request, uint64_t bytes, char *error);

#endif
