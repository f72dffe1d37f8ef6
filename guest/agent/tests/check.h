/* The smallest thing that can fail a test and say where. */
#ifndef SLIPWAY_CHECK_H
#define SLIPWAY_CHECK_H

#include <stdio.h>
#include <stdlib.h>

#define CHECK(condition)                                                                     \
	do {                                                                                 \
		if (!(condition)) {                                                          \
			fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition);      \
			abort();                                                             \
		}                                                                            \
	} while (0)

/* Runs a test and prints its name. */
#define RUN(test) (test(), puts(#test))

#endif
