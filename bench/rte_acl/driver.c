/*
 * Classifies headers with DPDK's rte_acl and says how long that took.
 *
 *   driver [EAL arguments] -- RULES
 *
 * RULES: records of 19 uint32: the low ends of 9 fields, their high ends, and the number that a match gives (not 0).
 * The fields are src, dst (prefixes), sport, dport, proto, iif, oif, state, local (ranges). Earlier rules win.
 *
 * Builds its tables and prints "build SECONDS BYTES". Then it does as the lines of its input say, and answers each:
 *
 *   headers PATH          reads records of struct header, in network byte order: "headers COUNT"
 *   pass ALGORITHM BATCH  classifies all headers once, BATCH of them a call: "pass SECONDS", or "no REASON"
 *   results PATH          writes what the last pass found, one uint32 a header, 0 where nothing matched: "results COUNT"
 *
 * So passes can take turns with what they are compared with. Only the calls of rte_acl_classify are timed. Its tables
 * and the headers are put on huge pages, as DPDK would have them.
 */
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#include <rte_acl.h>
#include <rte_eal.h>
#include <rte_malloc.h>
#include <rte_memory.h>

enum { WORDS = 19, RULE_FIELDS = 9 };
enum { PROTO, SRC, DST, SPORT, DPORT, IIF, OIF, STATE, LOCAL, FIELDS };

struct header {
	uint8_t proto, unused[3];
	uint32_t src, dst;
	uint16_t sport, dport;
	uint8_t iif, oif, state, local;
} __attribute__((packed));

#define FIELD(kind, bytes, number, group, member)                                                                      \
	{ .type = RTE_ACL_FIELD_TYPE_##kind, .size = bytes, .field_index = number, .input_index = group,                   \
	  .offset = offsetof(struct header, member) }

static const struct rte_acl_field_def layout[FIELDS] = {
	FIELD(RANGE, 1, PROTO, 0, proto), FIELD(MASK, 4, SRC, 1, src),      FIELD(MASK, 4, DST, 2, dst),
	FIELD(RANGE, 2, SPORT, 3, sport), FIELD(RANGE, 2, DPORT, 3, dport), FIELD(RANGE, 1, IIF, 4, iif),
	FIELD(RANGE, 1, OIF, 4, oif),     FIELD(RANGE, 1, STATE, 4, state), FIELD(RANGE, 1, LOCAL, 4, local),
};

RTE_ACL_RULE_DEF(acl_rule, FIELDS);

static void fail(const char *what)
{
	fprintf(stderr, "rte_acl driver: %s\n", what);
	exit(1);
}

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec + 1e-9 * t.tv_nsec;
}

static void *read_file(const char *path, size_t record, size_t *count)
{
	FILE *file = fopen(path, "rb");
	void *data;
	long size;

	if (file == NULL || fseek(file, 0, SEEK_END) != 0)
		fail("cannot open an input file");
	size = ftell(file);
	rewind(file);
	data = aligned_alloc(1 << 21, ((size_t)size / (1 << 21) + 1) << 21);
	if (data == NULL)
		fail("out of memory");
	madvise(data, (size_t)size, MADV_HUGEPAGE);
	if (fread(data, 1, (size_t)size, file) != (size_t)size)
		fail("cannot read an input file");
	fclose(file);
	*count = (size_t)size / record;
	return data;
}

static int huge_pages(const struct rte_memseg_list *list, void *unused)
{
	(void)unused;
	madvise(list->base_va, list->len, MADV_HUGEPAGE);
	return 0;
}

static uint32_t prefix_length(uint32_t low, uint32_t high)
{
	uint32_t differ = low ^ high, length = 32;

	for (; differ != 0; differ >>= 1)
		length--;
	return length;
}

static struct rte_acl_ctx *build(const uint32_t *words, size_t count)
{
	struct rte_acl_param param = {
		.name = "bench", .socket_id = SOCKET_ID_ANY, .rule_size = RTE_ACL_RULE_SZ(FIELDS), .max_rule_num = count + 1,
	};
	struct rte_acl_ctx *ctx = rte_acl_create(&param);
	struct rte_acl_config config = { .num_categories = 1, .num_fields = FIELDS };

	if (ctx == NULL)
		fail("rte_acl_create failed");
	for (size_t i = 0; i < count; i++) {
		const uint32_t *low = words + i * WORDS, *high = low + RULE_FIELDS;
		struct acl_rule rule;

		memset(&rule, 0, sizeof(rule));
		rule.data.category_mask = 1;
		rule.data.priority = (int32_t)(count - i);
		rule.data.userdata = low[2 * RULE_FIELDS];
		rule.field[SRC].value.u32 = low[0];
		rule.field[SRC].mask_range.u32 = prefix_length(low[0], high[0]);
		rule.field[DST].value.u32 = low[1];
		rule.field[DST].mask_range.u32 = prefix_length(low[1], high[1]);
		rule.field[SPORT].value.u16 = (uint16_t)low[2];
		rule.field[SPORT].mask_range.u16 = (uint16_t)high[2];
		rule.field[DPORT].value.u16 = (uint16_t)low[3];
		rule.field[DPORT].mask_range.u16 = (uint16_t)high[3];
		for (int f = 4; f < RULE_FIELDS; f++) {
			int to = f == 4 ? PROTO : IIF + f - 5;

			rule.field[to].value.u8 = (uint8_t)low[f];
			rule.field[to].mask_range.u8 = (uint8_t)high[f];
		}
		if (rte_acl_add_rules(ctx, (struct rte_acl_rule *)&rule, 1) != 0)
			fail("rte_acl_add_rules failed");
	}
	memcpy(config.defs, layout, sizeof(layout));
	double start = now();
	if (rte_acl_build(ctx, &config) != 0)
		fail("rte_acl_build failed");
	double seconds = now() - start;
	size_t bytes = 0;
	struct rte_malloc_socket_stats stats;

	for (int socket = 0; socket < RTE_MAX_NUMA_NODES; socket++)
		if (rte_malloc_get_socket_stats(socket, &stats) == 0)
			bytes += stats.heap_allocsz_bytes;
	printf("build %.6f %zu\n", seconds, bytes);
	return ctx;
}

static int algorithm(const char *name)
{
	if (strcmp(name, "avx512") == 0)
		return RTE_ACL_CLASSIFY_AVX512X32;
	if (strcmp(name, "avx2") == 0)
		return RTE_ACL_CLASSIFY_AVX2;
	if (strcmp(name, "scalar") == 0)
		return RTE_ACL_CLASSIFY_SCALAR;
	return -1;
}

static struct header *headers;
static const uint8_t **data;
static uint32_t *results;
static size_t n;

static void load(const char *path)
{
	free(headers);
	free(data);
	free(results);
	headers = read_file(path, sizeof(struct header), &n);
	data = malloc((n + 1) * sizeof(*data));
	results = calloc(n + 1, sizeof(*results));
	if (data == NULL || results == NULL)
		fail("out of memory");
	for (size_t i = 0; i < n; i++)
		data[i] = (const uint8_t *)(headers + i);
	printf("headers %zu\n", n);
}

static void pass(struct rte_acl_ctx *ctx, const char *name, size_t batch)
{
	int kind = algorithm(name);

	if (kind < 0 || batch == 0 || rte_acl_set_ctx_classify(ctx, (enum rte_acl_classify_alg)kind) != 0) {
		printf("no this processor or build lacks %s\n", name);
		return;
	}
	double start = now();

	for (size_t i = 0; i < n; i += batch)
		rte_acl_classify(ctx, data + i, results + i, (uint32_t)(n - i < batch ? n - i : batch), 1);
	printf("pass %.6f\n", now() - start);
}

static void save(const char *path)
{
	FILE *out = fopen(path, "wb");

	if (out == NULL || fwrite(results, sizeof(*results), n, out) != n || fclose(out) != 0)
		fail("cannot write the results");
	printf("results %zu\n", n);
}

int main(int argc, char **argv)
{
	int eal = rte_eal_init(argc, argv);
	char line[4096], word[4096];
	size_t count, batch;

	if (eal < 0 || argc - eal != 2)
		fail("usage: driver [EAL arguments] -- RULES");
	rte_memseg_list_walk(huge_pages, NULL);

	uint32_t *rules = read_file(argv[eal + 1], WORDS * sizeof(uint32_t), &count);
	struct rte_acl_ctx *ctx = build(rules, count);

	free(rules);
	for (fflush(stdout); fgets(line, sizeof(line), stdin) != NULL; fflush(stdout)) {
		if (sscanf(line, "headers %4095[^\n]", word) == 1)
			load(word);
		else if (sscanf(line, "pass %4095s %zu", word, &batch) == 2)
			pass(ctx, word, batch);
		else if (sscanf(line, "results %4095[^\n]", word) == 1)
			save(word);
		else
			fail("a line is none of: headers PATH, pass ALGORITHM BATCH, results PATH");
	}
	return 0;
}
