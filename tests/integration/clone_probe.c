/*
 * What a container sees that must not be alike in two clones of one VM. Static, the only file of
 * its image. "unique": print it, then stay. "hold MIB": take that much memory, tell, give it back.
 */

#include <arpa/inet.h>
#include <elf.h>
#include <fcntl.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <netinet/ip.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { RANDOM_SIZE = 32, CONNECTIONS = 4, FIRST_PORT = 20000, HOLD_S = 2 };

static void fail(const char *what)
{
	perror(what);
	exit(1);
}

static void print_hex(const char *name, const unsigned char *bytes, size_t size)
{
	printf("%s=", name);
	for (size_t i = 0; i < size; i++)
		printf("%02x", bytes[i]);
	putchar('\n');
}

static size_t read_file(const char *path, void *bytes, size_t size)
{
	int fd = open(path, O_RDONLY);
	ssize_t count;

	if (fd < 0)
		return 0;
	count = read(fd, bytes, size);
	close(fd);
	return count > 0 ? (size_t)count : 0;
}

static uint64_t now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static struct sockaddr_in local(int port)
{
	struct sockaddr_in address = { .sin_family = AF_INET, .sin_port = htons((uint16_t)port) };

	address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	return address;
}

/* The sequence number of the SYN that the kernel sends from one fixed port to another. */
static uint32_t sniff_syn(int sniffer, int source_port)
{
	unsigned char packet[256];
	struct iphdr ip;
	struct tcphdr tcp;

	for (;;) {
		ssize_t size = recv(sniffer, packet, sizeof(packet), 0);

		if (size < 0)
			fail("recv");
		memcpy(&ip, packet, sizeof(ip));
		if (ip.protocol != IPPROTO_TCP || size < (ssize_t)(ip.ihl * 4u + sizeof(tcp)))
			continue;
		memcpy(&tcp, packet + ip.ihl * 4u, sizeof(tcp));
		if (tcp.syn && !tcp.ack && ntohs(tcp.source) == source_port)
			return ntohl(tcp.seq);
	}
}

static void print_sequence_numbers(void)
{
	int sniffer = socket(AF_PACKET, SOCK_DGRAM | SOCK_CLOEXEC, htons(ETH_P_IP));
	struct timeval deadline = { .tv_sec = 5 };

	if (sniffer < 0)
		fail("AF_PACKET");
	setsockopt(sniffer, SOL_SOCKET, SO_RCVTIMEO, &deadline, sizeof(deadline));
	for (int i = 0; i < CONNECTIONS; i++) {
		struct sockaddr_in from = local(FIRST_PORT + 2 * i), to = local(FIRST_PORT + 2 * i + 1);
		int server = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
		int client = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
		uint64_t at_ns;

		if (bind(server, (struct sockaddr *)&to, sizeof(to)) || listen(server, 1) ||
		    bind(client, (struct sockaddr *)&from, sizeof(from)))
			fail("bind");
		at_ns = now_ns();
		if (connect(client, (struct sockaddr *)&to, sizeof(to)))
			fail("connect");
		printf("sequence=%u at %llu\n", sniff_syn(sniffer, FIRST_PORT + 2 * i),
		       (unsigned long long)at_ns);
		close(client);
		close(server);
	}
}

static void print_unique(void)
{
	unsigned char drawn[RANDOM_SIZE], device[RANDOM_SIZE];
	char text[128];
	uint64_t began_ns;
	const unsigned char *start_random = (const unsigned char *)getauxval(AT_RANDOM);
	void *mapped;

	if (getrandom(drawn, sizeof(drawn), 0) != sizeof(drawn))
		fail("getrandom");
	if (read_file("/dev/urandom", device, sizeof(device)) != sizeof(device))
		fail("/dev/urandom");
	began_ns = now_ns();
	print_hex("getrandom", drawn, sizeof(drawn));
	print_hex("urandom", device, sizeof(device));
	print_hex("at_random", start_random, 16);
	mapped = mmap(NULL, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	printf("addresses=%p %p\n", (void *)text, mapped);
	printf("time_ns=%llu\n", (unsigned long long)began_ns);
	text[read_file("/proc/sys/kernel/random/boot_id", text, sizeof(text) - 1)] = '\0';
	printf("boot_id=%s\n", strtok(text, "\n"));
	if (gethostname(text, sizeof(text)))
		fail("gethostname");
	printf("hostname=%s\n", text);
	text[read_file("/etc/machine-id", text, sizeof(text) - 1)] = '\0';
	printf("machine_id=%s\n", text[0] ? strtok(text, "\n") : "");
	print_sequence_numbers();
	puts("done=yes");
	fflush(stdout);
}

static void hold(size_t size)
{
	char *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (memory == MAP_FAILED)
		fail("mmap");
	memset(memory, 0x5a, size);
	puts("full");
	fflush(stdout);
	sleep(HOLD_S);
	munmap(memory, size);
	puts("freed");
}

int main(int argc, char **argv)
{
	if (argc == 3 && strcmp(argv[1], "hold") == 0) {
		hold(strtoull(argv[2], NULL, 10) << 20);
		return 0;
	}
	if (argc == 2 && strcmp(argv[1], "unique") == 0)
		print_unique();
	pause();
	return 0;
}
