/* Messages for the operator (the guest's boot console), and the clock. */
#ifndef SLIPWAY_CONSOLE_H
#define SLIPWAY_CONSOLE_H

#include <stdint.h>
#include <time.h>

/* One line, prefixed "slipway-agent: ". */
void say(const char *format, ...) __attribute__((format(printf, 1, 2)));
uint64_t clock_ns(clockid_t clock);

#endif
