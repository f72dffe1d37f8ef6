/* Settings of the native build's command line. */
#ifndef SLIPWAY_NATIVE_H
#define SLIPWAY_NATIVE_H

/* Where ring files go; NULL: no spill, whatever CREATE asks for. */
extern const char *native_spool_directory;

#endif
