/* CRC-32 as IEEE 802.3 and zlib have it. */
#ifndef SLIPWAY_CRC_H
#define SLIPWAY_CRC_H

#include <stddef.h>
#include <stdint.h>

/* Chain calls by passing the previous result; begin with 0. */
uint32_t crc32_update(uint32_t crc, const uint8_t *bytes, size_t count);

#endif
