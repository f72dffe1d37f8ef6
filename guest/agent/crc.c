#include "crc.h"

#include "buffer.h"

/* Eight bytes per step: under software emulation a table look-up per byte would cost more than the
 * copy through the virtqueue. */
#define SLICES 8

static uint32_t table[SLICES][256];

static void make_table(void)
{
	uint32_t value;

	for (unsigned i = 0; i < 256; i++) {
		value = i;
		for (int bit = 0; bit < 8; bit++)
			value = value & 1 ? value >> 1 ^ 0xedb88320u : value >> 1;
		table[0][i] = value;
	}
	for (unsigned i = 0; i < 256; i++)
		for (int slice = 1; slice < SLICES; slice++)
			table[slice][i] = table[slice - 1][i] >> 8 ^
					  table[0][table[slice - 1][i] & 0xff];
}

uint32_t crc32_update(uint32_t crc, const uint8_t *bytes, size_t count)
{
	uint32_t low, high;

	if (!table[0][1])
		make_table();
	crc = ~crc;
	for (; count >= SLICES; count -= SLICES, bytes += SLICES) {
		low = get_u32(bytes) ^ crc;
		high = get_u32(bytes + 4);
		crc = table[7][low & 0xff] ^ table[6][low >> 8 & 0xff] ^
		      table[5][low >> 16 & 0xff] ^ table[4][low >> 24] ^
		      table[3][high & 0xff] ^ table[2][high >> 8 & 0xff] ^
		      table[1][high >> 16 & 0xff] ^ table[0][high >> 24];
	}
	for (; count; count--)
		crc = crc >> 8 ^ table[0][(crc ^ *bytes++) & 0xff];
	return ~crc;
}
