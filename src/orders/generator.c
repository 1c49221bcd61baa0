/*
 * generator.c
 *		Synthetic order events, as JSON: for trying, testing and measuring.
 *
 * Depends on json-c, for escaping the tenant, and on nothing else: tested alone.
 */
#include <limits.h>
#include <string.h>
#include <time.h>

#include <json-c/json.h>

#include "orders/generator.h"

#define MAX_ORDER			100000
#define MIN_AMOUNT_CENTS	500
#define MAX_AMOUNT_CENTS	50000

#define USECS_PER_SEC		1000000

#define ROTATE_LEFT(x, n)	(((x) << (n)) | ((x) >> (64 - (n))))

/* An event type is drawn as often as it stands here. */
static const char *const event_types[] = {
	"order_placed", "order_placed", "order_placed", "order_placed", "order_placed",
	"order_paid", "order_paid", "order_paid", "order_paid",
	"order_shipped", "order_shipped", "order_shipped",
	"order_cancelled"
};

#define EVENT_TYPES			(sizeof(event_types) / sizeof(event_types[0]))

/* splitmix64 (Sebastiano Vigna, https://prng.di.unimi.it, public domain) */
void
spine_generator_seed(SpineRandom *random, uint64_t seed)
{
	for (int i = 0; i < 4; i++)
	{
		uint64_t	z = seed += UINT64_C(0x9e3779b97f4a7c15);

		z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
		z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
		random->state[i] = z ^ (z >> 31);
	}
}

/* xoshiro256** (David Blackman and Sebastiano Vigna, same place, public domain) */
static uint64_t
draw(SpineRandom *random)
{
	uint64_t   *s = random->state;
	uint64_t	result = ROTATE_LEFT(s[1] * 5, 7) * 9;
	uint64_t	shifted = s[1] << 17;

	s[2] ^= s[0];
	s[3] ^= s[1];
	s[1] ^= s[2];
	s[0] ^= s[3];
	s[2] ^= shifted;
	s[3] = ROTATE_LEFT(s[3], 45);
	return result;
}

/*
 * 0 to bound - 1, each equally likely: the high half of a product (Lemire, "Fast random
 * integer generation in an interval", 2019).  The few draws that would favour some
 * results are repeated.
 */
static uint32_t
draw_below(SpineRandom *random, uint32_t bound)
{
	uint64_t	product;

	do
		product = (draw(random) >> 32) * bound;
	while ((uint32_t) product < -bound % bound);
	return (uint32_t) (product >> 32);
}

char *
spine_generator_tenant_literal(const char *tenant, size_t len)
{
	struct json_object *string;
	const char *literal;
	char	   *copy = NULL;

	if (len > INT_MAX)
		return NULL;
	string = json_object_new_string_len(tenant, (int) len);
	if (string == NULL)
		return NULL;
	literal = json_object_to_json_string_ext(string, JSON_C_TO_STRING_PLAIN |
											 JSON_C_TO_STRING_NOSLASHESCAPE);
	if (literal != NULL)
		copy = strdup(literal);
	json_object_put(string);
	return copy;
}

/* Text that grows in a buffer and is counted beyond its end. */
typedef struct Writer
{
	char	   *buf;
	size_t		size;
	size_t		len;
} Writer;

static void
put(Writer *writer, const char *text, size_t len)
{
	if (writer->len < writer->size)
		memcpy(writer->buf + writer->len, text,
			   len < writer->size - writer->len ? len : writer->size - writer->len);
	writer->len += len;
}

#define PUT_LITERAL(writer, literal)	put(writer, literal, sizeof(literal) - 1)

/* Decimal, with zeros before it up to this width. */
static void
put_number(Writer *writer, unsigned value, size_t width)
{
	char		digits[10];
	size_t		n = 0;

	do
		digits[sizeof(digits) - ++n] = '0' + value % 10;
	while ((value /= 10) > 0 || n < width);
	put(writer, &digits[sizeof(digits) - n], n);
}

/* The lower ndigits hexadecimal digits. */
static void
put_hex(Writer *writer, uint64_t value, size_t ndigits)
{
	char		digits[16];

	for (size_t i = ndigits; i-- > 0; value >>= 4)
		digits[i] = "0123456789abcdef"[value & 0xf];
	put(writer, digits, ndigits);
}

/* By hand: snprintf took as long as everything else about sending an event. */
size_t
spine_generator_event(SpineRandom *random, const char *tenant_literal,
					  int64_t unix_time_us, char *buf, size_t size)
{
	/* the version, 4, and the variant, binary 10, are part of a random uuid */
	uint64_t	uuid_high = (draw(random) & ~UINT64_C(0xf000)) | 0x4000;
	uint64_t	uuid_low = (draw(random) >> 2) | (UINT64_C(2) << 62);
	const char *event_type = event_types[draw_below(random, EVENT_TYPES)];
	unsigned	order = 1 + draw_below(random, MAX_ORDER);
	unsigned	amount_cents = MIN_AMOUNT_CENTS +
		draw_below(random, MAX_AMOUNT_CENTS - MIN_AMOUNT_CENTS + 1);
	time_t		seconds = unix_time_us / USECS_PER_SEC;
	struct tm	tm;
	Writer		writer = {buf, size, 0};

	gmtime_r(&seconds, &tm);

	PUT_LITERAL(&writer, "{\"event_id\":\"");
	put_hex(&writer, uuid_high >> 32, 8);
	PUT_LITERAL(&writer, "-");
	put_hex(&writer, uuid_high >> 16, 4);
	PUT_LITERAL(&writer, "-");
	put_hex(&writer, uuid_high, 4);
	PUT_LITERAL(&writer, "-");
	put_hex(&writer, uuid_low >> 48, 4);
	PUT_LITERAL(&writer, "-");
	put_hex(&writer, uuid_low, 12);
	PUT_LITERAL(&writer, "\",\"tenant\":");
	put(&writer, tenant_literal, strlen(tenant_literal));
	PUT_LITERAL(&writer, ",\"event_type\":\"");
	put(&writer, event_type, strlen(event_type));
	PUT_LITERAL(&writer, "\",\"order_id\":\"ord-");
	put_number(&writer, order, 1);
	PUT_LITERAL(&writer, "\",\"amount_cents\":");
	put_number(&writer, amount_cents, 1);
	PUT_LITERAL(&writer, ",\"event_time\":\"");
	put_number(&writer, tm.tm_year + 1900, 4);
	PUT_LITERAL(&writer, "-");
	put_number(&writer, tm.tm_mon + 1, 2);
	PUT_LITERAL(&writer, "-");
	put_number(&writer, tm.tm_mday, 2);
	PUT_LITERAL(&writer, "T");
	put_number(&writer, tm.tm_hour, 2);
	PUT_LITERAL(&writer, ":");
	put_number(&writer, tm.tm_min, 2);
	PUT_LITERAL(&writer, ":");
	put_number(&writer, tm.tm_sec, 2);
	PUT_LITERAL(&writer, ".");
	put_number(&writer, unix_time_us % USECS_PER_SEC, 6);
	PUT_LITERAL(&writer, "Z\"}");

	if (size > 0)
		buf[writer.len < size ? writer.len : size - 1] = '\0';
	return writer.len;
}
