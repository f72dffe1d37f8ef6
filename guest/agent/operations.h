/* The operations of REQUEST. */
#ifndef SLIPWAY_OPERATIONS_H
#define SLIPWAY_OPERATIONS_H

#include <stddef.h>
#include <stdint.h>

/* Answers request `id` now or later. */
void operation_run(uint64_t id, const uint8_t *message, size_t length);
/* POWER_OFF has been answered: time to go. */
int operation_is_power_off(void);

#endif
