#include "device_rules.h"

#include <errno.h>
#include <linux/bpf.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Docker's default rules (moby oci/defaults.go and runc's AllowedDevices): mknod of everything, use of
 * the harmless ones and of the container's own terminals. /dev/console of the guest (5:1) is left
 * out: a container's /dev/console is a pty, and the guest's console is not the container's. */
#define ANY_MINOR (-1)

static const struct {
	int major, minor;
} usable[] = {
	{ 1, 3 }, { 1, 5 }, { 1, 7 }, { 1, 8 }, { 1, 9 }, /* null zero full random urandom */
	{ 5, 0 }, { 5, 2 }, { 136, ANY_MINOR }, /* tty ptmx pts */
};

#define USABLE (sizeof(usable) / sizeof(usable[0]))
#define RULE_INSTRUCTIONS 8
#define MAX_INSTRUCTIONS (16 + 4 * USABLE + RULE_INSTRUCTIONS * MAX_DEVICE_RULES)

struct program {
	struct bpf_insn code[MAX_INSTRUCTIONS];
	size_t count;
};

static void emit(struct program *p, uint8_t code, uint8_t to, uint8_t from, int16_t jump, int32_t value)
{
	p->code[p->count++] = (struct bpf_insn){ .code = code, .dst_reg = to, .src_reg = from,
						 .off = jump, .imm = value };
}

static void load(struct program *p, uint8_t to, size_t offset)
{
	emit(p, BPF_LDX | BPF_MEM | BPF_W, to, BPF_REG_1, (int16_t)offset, 0);
}

/* Skips `jump` instructions if the register isn't `value`. */
static void unless_equal(struct program *p, uint8_t reg, int32_t value, int16_t jump)
{
	emit(p, BPF_JMP | BPF_JNE | BPF_K, reg, 0, jump, value);
}

static void answer(struct program *p, bool allowed)
{
	emit(p, BPF_ALU64 | BPF_MOV | BPF_K, BPF_REG_0, 0, 0, allowed);
	emit(p, BPF_JMP | BPF_EXIT, 0, 0, 0, 0);
}

/* Type, numbers and access must fit; a lesser access than the allowed one fits, too. */
static void allow(struct program *p, const struct device_rule *rule)
{
	unless_equal(p, BPF_REG_2, rule->is_block ? BPF_DEVCG_DEV_BLOCK : BPF_DEVCG_DEV_CHAR, 7);
	unless_equal(p, BPF_REG_4, (int32_t)rule->major, 6);
	unless_equal(p, BPF_REG_5, (int32_t)rule->minor, 5);
	emit(p, BPF_ALU64 | BPF_MOV | BPF_X, BPF_REG_0, BPF_REG_3, 0, 0);
	emit(p, BPF_ALU64 | BPF_AND | BPF_K, BPF_REG_0, 0, 0, (int32_t)(~rule->access & 0xffff));
	unless_equal(p, BPF_REG_0, 0, 2);
	answer(p, true);
}

/* access_type is the access in its upper, the device's type in its lower half. */
static void build(struct program *p, const struct device_rule *more, size_t count)
{
	load(p, BPF_REG_2, offsetof(struct bpf_cgroup_dev_ctx, access_type));
	load(p, BPF_REG_4, offsetof(struct bpf_cgroup_dev_ctx, major));
	load(p, BPF_REG_5, offsetof(struct bpf_cgroup_dev_ctx, minor));
	emit(p, BPF_ALU | BPF_MOV | BPF_X, BPF_REG_3, BPF_REG_2, 0, 0);
	emit(p, BPF_ALU | BPF_RSH | BPF_K, BPF_REG_3, 0, 0, 16);
	emit(p, BPF_ALU | BPF_AND | BPF_K, BPF_REG_2, 0, 0, 0xffff);
	unless_equal(p, BPF_REG_3, BPF_DEVCG_ACC_MKNOD, 2);
	answer(p, true);
	unless_equal(p, BPF_REG_2, BPF_DEVCG_DEV_CHAR, (int16_t)(4 * USABLE));
	for (size_t i = 0; i < USABLE; i++) {
		if (usable[i].minor == ANY_MINOR) {
			unless_equal(p, BPF_REG_4, usable[i].major, 3);
			emit(p, BPF_JMP | BPF_JA, 0, 0, 0, 0);
		} else {
			unless_equal(p, BPF_REG_4, usable[i].major, 3);
			unless_equal(p, BPF_REG_5, usable[i].minor, 2);
		}
		answer(p, true);
	}
	for (size_t i = 0; i < count; i++)
		allow(p, &more[i]);
	answer(p, false);
}

static int call(int command, union bpf_attr *attributes)
{
	return (int)syscall(SYS_bpf, command, attributes, sizeof(*attributes));
}

static int load_program(const struct device_rule *more, size_t count)
{
	union bpf_attr attributes;
	struct program program = { .count = 0 };

	build(&program, more, count);
	memset(&attributes, 0, sizeof(attributes));
	attributes.prog_type = BPF_PROG_TYPE_CGROUP_DEVICE;
	attributes.insns = (uint64_t)(uintptr_t)program.code;
	attributes.insn_cnt = (uint32_t)program.count;
	attributes.license = (uint64_t)(uintptr_t)"Apache-2.0";
	return call(BPF_PROG_LOAD, &attributes);
}

static int usual = -1; /* loaded, -1: not yet */

int device_rules_load(void)
{
	if (usual < 0)
		usual = load_program(NULL, 0);
	return usual < 0 ? errno : 0;
}

int device_rules_attach(int cgroup_fd, const struct device_rule *more, size_t count)
{
	union bpf_attr attributes;
	int program, result, error;

	if (count > MAX_DEVICE_RULES)
		return E2BIG;
	error = device_rules_load();
	if (error)
		return error;
	program = count ? load_program(more, count) : usual;
	if (program < 0)
		return errno;
	memset(&attributes, 0, sizeof(attributes));
	attributes.target_fd = (uint32_t)cgroup_fd;
	attributes.attach_bpf_fd = (uint32_t)program;
	attributes.attach_type = BPF_CGROUP_DEVICE;
	attributes.attach_flags = BPF_F_ALLOW_MULTI;
	result = call(BPF_PROG_ATTACH, &attributes) ? errno : 0;
	if (count)
		close(program);
	return result;
}
