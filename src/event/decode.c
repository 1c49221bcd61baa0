/*
 * decode.c
 *		Bytes of a record to fields, exactly or not at all, in one pass.
 *
 * No tree is built: a tree is up to 260 times as large as its record.  A field's text
 * is where the record has it, an object or an array with all between its brackets.
 * All of the record is checked, what nobody asks for as well.
 *
 * Depends on nothing.  Turning fields into typed values is not done here: what a
 * number or a string means is the target column's affair.
 */
#include "event/decode.h"

#include <endian.h>
#include <stdio.h>
#include <string.h>

/* Levels of objects and arrays, the record itself counted. */
#define MAX_DEPTH			512

/* A field's length is 32 bits.  Neither Kafka nor a PostgreSQL value gets as far. */
#define MAX_RECORD_LEN		((size_t) 1 << 30)

/*
 * What PostgreSQL allocates while it makes jsonb of JSON text, about: measured for each
 * kind of value, its arrays that grow by doubling at their worst.  A tree of theirs, too,
 * is up to 220 times as large as its text; test/t/026_big_records.pl sees the whole.
 */
#define OBJECT_COST			720
#define ARRAY_COST			320
#define KEY_COST			120
#define SCALAR_COST			140
#define BYTE_COST			4

#define EVERY_BYTE(c)		(UINT64_C(0x0101010101010101) * (c))

typedef struct Reader
{
	const char *start;
	const char *at;
	const char *end;
	const char *complaint;		/* about the byte at `at` */
	bool		beyond_limit;	/* the complaint is of what is too much */
	bool		has_escapes;	/* the last string had some */
	bool		has_nul;		/* and a \u0000 among them */
	size_t		memory;			/* that jsonb of the nested values so far takes, about */
} Reader;

/* The bytes of a key, as they are in the record. */
typedef struct Key
{
	const char *text;
	size_t		len;
	bool		has_escapes;
} Key;

static bool
complain(Reader *reader, const char *complaint)
{
	reader->complaint = reader->at == reader->end ? "JSON without an end" : complaint;
	return false;
}

static bool
complain_at(Reader *reader, const char *at, const char *complaint)
{
	reader->at = at;
	return complain(reader, complaint);
}

/* The next byte that is no white space; '\0' at the end. */
static inline char
peek(Reader *reader)
{
	while (reader->at < reader->end)
	{
		char		c = *reader->at;

		if (c != ' ' && c != '\t' && c != '\n' && c != '\r')
			return c;
		reader->at++;
	}
	return '\0';
}

/* --------------------------------------------------------------------------
 * Strings
 * -------------------------------------------------------------------------- */

/* Bytes of the UTF-8 sequence, of two or more, that starts at `at`; 0: it is none. */
static int
utf8_length(const char *at, const char *end)
{
	const unsigned char *bytes = (const unsigned char *) at;
	unsigned char lead = bytes[0];
	int			len;

	if (lead < 0xC2 || lead > 0xF4)
		return 0;
	len = lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;
	if (end - at < len)
		return 0;
	for (int i = 1; i < len; i++)
	{
		if ((bytes[i] & 0xC0) != 0x80)
			return 0;
	}

	/* overlong, surrogate or above U+10FFFF: the second byte tells */
	if ((lead == 0xE0 && bytes[1] < 0xA0) || (lead == 0xED && bytes[1] > 0x9F) ||
		(lead == 0xF0 && bytes[1] < 0x90) || (lead == 0xF4 && bytes[1] > 0x8F))
		return 0;
	return len;
}

/*
 * The first byte that is a quote, a backslash, a control character or not ASCII;
 * eight at a time.  A byte borrows from the one above it, but the lowest that is
 * marked is always one of these.
 */
static inline const char *
skip_plain(const char *at, const char *end)
{
	for (; end - at >= 8; at += 8)
	{
		uint64_t	bytes;
		uint64_t	marks;

		memcpy(&bytes, at, 8);
		bytes = le64toh(bytes);
		marks = (bytes | (bytes - EVERY_BYTE(0x20)) |
				 ((bytes ^ EVERY_BYTE('"')) - EVERY_BYTE(1)) |
				 ((bytes ^ EVERY_BYTE('\\')) - EVERY_BYTE(1))) & EVERY_BYTE(0x80);
		if (marks != 0)
			return at + __builtin_ctzll(marks) / 8;
	}
	for (; at < end; at++)
	{
		unsigned char c = *at;

		if (c == '"' || c == '\\' || c < 0x20 || c >= 0x80)
			break;
	}
	return at;
}

/* The UTF-16 unit that a \uXXXX here stands for, or -1 if there is none. */
static int
escaped_unit(const char *at, const char *end)
{
	int			unit = 0;

	if (end - at < 6 || at[0] != '\\' || at[1] != 'u')
		return -1;
	for (int i = 2; i < 6; i++)
	{
		char		c = at[i];

		if (c >= '0' && c <= '9')
			unit = unit * 16 + (c - '0');
		else if ((c | 0x20) >= 'a' && (c | 0x20) <= 'f')
			unit = unit * 16 + ((c | 0x20) - 'a' + 10);
		else
			return -1;
	}
	return unit;
}

static bool
read_escape(Reader *reader)
{
	const char *at = reader->at;
	int			unit;

	reader->has_escapes = true;
	if (reader->end - at >= 2 && at[1] != '\0' && strchr("\"\\/bfnrt", at[1]) != NULL)
	{
		reader->at += 2;
		return true;
	}

	unit = escaped_unit(at, reader->end);
	if (unit < 0)
		return complain(reader, "invalid escape in a string");
	if (unit == 0)
		reader->has_nul = true;
	if (unit >= 0xD800 && unit <= 0xDFFF)
	{
		int			low = escaped_unit(at + 6, reader->end);

		if (unit >= 0xDC00 || low < 0xDC00 || low > 0xDFFF)
			return complain(reader, "half of a surrogate pair in a string");
		reader->at += 6;
	}
	reader->at += 6;
	return true;
}

/* A string, whose opening quote is at `at`. */
static bool
read_string(Reader *reader)
{
	const char *opening = reader->at++;

	reader->has_escapes = reader->has_nul = false;
	for (;;)
	{
		unsigned char c;

		reader->at = skip_plain(reader->at, reader->end);
		if (reader->at == reader->end)
			return complain_at(reader, opening, "string without an end");
		c = *reader->at;
		if (c == '"')
		{
			reader->at++;
			return true;
		}
		else if (c == '\\')
		{
			if (!read_escape(reader))
				return false;
		}
		else if (c < 0x20)
			return complain(reader, "control character in a string");
		else
		{
			int			len = utf8_length(reader->at, reader->end);

			if (len == 0)
				return complain(reader, "invalid UTF-8");
			reader->at += len;
		}
	}
}

/* Writes the character at *at, which may be an escape, as UTF-8; returns its bytes. */
static int
unescape(const char **at, const char *end, char *to)
{
	static const char *const letters = "bfnrt";
	static const char *const meanings = "\b\f\n\r\t";
	const char *letter;
	unsigned	code;

	if (**at != '\\')
	{
		*to = *(*at)++;
		return 1;
	}
	if ((*at)[1] != 'u')
	{
		letter = strchr(letters, (*at)[1]);
		*to = letter ? meanings[letter - letters] : (*at)[1];
		*at += 2;
		return 1;
	}

	code = (unsigned) escaped_unit(*at, end);
	*at += 6;
	if (code < 0x80)
	{
		to[0] = (char) code;
		return 1;
	}
	if (code < 0x800)
	{
		to[0] = (char) (0xC0 | code >> 6);
		to[1] = (char) (0x80 | (code & 0x3F));
		return 2;
	}
	if (code < 0xD800 || code > 0xDFFF)
	{
		to[0] = (char) (0xE0 | code >> 12);
		to[1] = (char) (0x80 | (code >> 6 & 0x3F));
		to[2] = (char) (0x80 | (code & 0x3F));
		return 3;
	}
	code = 0x10000 + ((code - 0xD800) << 10) + ((unsigned) escaped_unit(*at, end) - 0xDC00);
	*at += 6;
	to[0] = (char) (0xF0 | code >> 18);
	to[1] = (char) (0x80 | (code >> 12 & 0x3F));
	to[2] = (char) (0x80 | (code >> 6 & 0x3F));
	to[3] = (char) (0x80 | (code & 0x3F));
	return 4;
}

void
spine_unescape(SpineField *field, char *room)
{
	const char *at = field->text;
	const char *end = at + field->len;
	char	   *to = room;

	while (at < end)
	{
		const char *escape = memchr(at, '\\', end - at);
		size_t		plain = (escape ? escape : end) - at;

		memcpy(to, at, plain);
		at += plain;
		to += plain;
		if (at < end)
			to += unescape(&at, end, to);
	}
	field->kind = SPINE_FIELD_STRING;
	field->text = room;
	field->len = (uint32_t) (to - room);
}

/* --------------------------------------------------------------------------
 * Numbers and names
 * -------------------------------------------------------------------------- */

static const char *
skip_digits(const char *at, const char *end)
{
	while (at < end && *at >= '0' && *at <= '9')
		at++;
	return at;
}

/* Where the number that starts at `at` ends; NULL: there is none. */
static const char *
number_end(const char *at, const char *end)
{
	const char *digits;

	if (at < end && *at == '-')
		at++;
	digits = at;
	at = skip_digits(at, end);
	if (at == digits || (*digits == '0' && at - digits > 1))
		return NULL;
	if (at < end && *at == '.')
	{
		digits = ++at;
		at = skip_digits(at, end);
		if (at == digits)
			return NULL;
	}
	if (at < end && (*at | 0x20) == 'e')
	{
		at++;
		if (at < end && (*at == '+' || *at == '-'))
			at++;
		digits = at;
		at = skip_digits(at, end);
		if (at == digits)
			return NULL;
	}
	return at;
}

static const char *
name_end(const char *at, const char *end, const char *name)
{
	size_t		len = strlen(name);

	return (size_t) (end - at) >= len && memcmp(at, name, len) == 0 ? at + len : NULL;
}

/* What would make another word of a number or a name that ends before it. */
static bool
is_word_byte(char c)
{
	return (c >= '0' && c <= '9') || ((c | 0x20) >= 'a' && (c | 0x20) <= 'z') ||
		c == '-' || c == '+' || c == '.';
}

/* A number, true, false or null; `first` is its first byte. */
static bool
read_word(Reader *reader, char first, SpineField *field)
{
	const char *word = reader->at;
	const char *end;

	switch (first)
	{
		case 't':
			field->kind = SPINE_FIELD_BOOLEAN;
			end = name_end(word, reader->end, "true");
			break;
		case 'f':
			field->kind = SPINE_FIELD_BOOLEAN;
			end = name_end(word, reader->end, "false");
			break;
		case 'n':
			field->kind = SPINE_FIELD_NULL;
			end = name_end(word, reader->end, "null");
			break;
		default:
			field->kind = SPINE_FIELD_NUMBER;
			end = number_end(word, reader->end);
			break;
	}
	if (end == NULL || (end < reader->end && is_word_byte(*end)))
		return complain(reader, is_word_byte(first) ?
						"neither a number nor true, false or null" : "unexpected byte");

	reader->at = end;
	field->text = word;
	field->len = field->kind == SPINE_FIELD_NULL ? 0 : (uint32_t) (end - word);
	return true;
}

/* --------------------------------------------------------------------------
 * Values
 * -------------------------------------------------------------------------- */

/* A value that is neither object nor array; `first` is its first byte. */
static inline bool
read_scalar(Reader *reader, char first, SpineField *field)
{
	const char *text = reader->at + 1;

	if (first != '"')
		return read_word(reader, first, field);
	if (!read_string(reader))
		return false;
	field->kind = reader->has_escapes ? SPINE_FIELD_ESCAPED : SPINE_FIELD_STRING;
	field->text = text;
	field->len = (uint32_t) (reader->at - 1 - text);
	return true;
}

/* The key of a member, and its colon. */
static inline bool
read_key(Reader *reader, Key *key)
{
	const char *text;

	if (peek(reader) != '"')
		return complain(reader, "no key");
	text = reader->at + 1;
	if (!read_string(reader))
		return false;
	key->text = text;
	key->len = reader->at - 1 - text;
	key->has_escapes = reader->has_escapes;
	if (peek(reader) != ':')
		return complain(reader, "no colon after a key");

	/* PostgreSQL cannot hold it, and other readers take it for a shorter key */
	if (reader->has_nul)
		return complain(reader, "\\u0000 in a key");
	reader->at++;
	return true;
}

/* The comma before the next value or member of what `closing` would end. */
static inline bool
read_comma(Reader *reader, char closing)
{
	if (peek(reader) != ',')
		return complain(reader, closing == '}' ? "neither a comma nor the end of the object" :
						"neither a comma nor the end of the array");
	reader->at++;
	if (peek(reader) == closing)
		return complain(reader, "nothing after a comma");
	return true;
}

/* An object or an array, with all that is in it. */
static bool
read_nested(Reader *reader)
{
	char		closing[MAX_DEPTH - 1]; /* the record itself is one more level */
	int			depth = 0;

	do
	{
		char		first = peek(reader);
		bool		is_open = false;
		SpineField	scalar;
		Key			key;

		/* a value begins here */
		if (first == '{' || first == '[')
		{
			if (depth == MAX_DEPTH - 1)
			{
				reader->beyond_limit = true;
				return complain(reader, "nested deeper than 512 levels");
			}
			reader->at++;
			reader->memory += first == '{' ? OBJECT_COST : ARRAY_COST;
			closing[depth++] = first == '{' ? '}' : ']';
			is_open = peek(reader) != closing[depth - 1];
		}
		else if (read_scalar(reader, first, &scalar))
			reader->memory += SCALAR_COST;
		else
			return false;

		/* has it ended, so may have what it is in */
		if (!is_open)
		{
			while (depth > 0 && peek(reader) == closing[depth - 1])
			{
				reader->at++;
				depth--;
			}
			if (depth > 0 && !read_comma(reader, closing[depth - 1]))
				return false;
		}
		if (depth > 0 && closing[depth - 1] == '}')
		{
			if (!read_key(reader, &key))
				return false;
			reader->memory += KEY_COST;
		}
	} while (depth > 0);
	return true;
}

static bool
read_value(Reader *reader, SpineField *field)
{
	char		first = peek(reader);
	const char *start = reader->at;

	if (first != '{' && first != '[')
		return read_scalar(reader, first, field);
	if (!read_nested(reader))
		return false;
	field->kind = SPINE_FIELD_JSON;
	field->text = start;
	field->len = (uint32_t) (reader->at - start);
	return true;
}

/* --------------------------------------------------------------------------
 * Fields
 * -------------------------------------------------------------------------- */

/* Less, equal or greater than 0, as the key is beside the spec's. */
static int
compare_key(const Key *key, const SpineFieldSpec *spec)
{
	const char *at = key->text;
	const char *end = at + key->len;
	size_t		compared = 0;

	if (!key->has_escapes)
	{
		int			order = memcmp(at, spec->json_key,
								   key->len < spec->key_len ? key->len : spec->key_len);

		return order ? order : (key->len > spec->key_len) - (key->len < spec->key_len);
	}
	while (at < end)
	{
		char		character[4];
		int			len = unescape(&at, end, character);

		for (int i = 0; i < len; i++, compared++)
		{
			unsigned char ours = character[i];
			unsigned char theirs = spec->json_key[compared];	/* '\0' at its end */

			if (ours != theirs)
				return ours < theirs ? -1 : 1;
		}
	}
	return compared < spec->key_len ? -1 : 0;
}

/* Sorts by insertion: it is done once, for as many specs as tables have columns. */
void
spine_index_specs(SpineFieldSpec *specs, int nspecs)
{
	for (int i = 0; i < nspecs; i++)
		specs[i].key_len = strlen(specs[i].json_key);
	for (int i = 0; i < nspecs; i++)
	{
		Key			key = {specs[i].json_key, specs[i].key_len, false};
		int			place = i;

		for (; place > 0 && compare_key(&key, &specs[specs[place - 1].by_key]) < 0; place--)
			specs[place].by_key = specs[place - 1].by_key;
		specs[place].by_key = i;
		specs[i].same_key = i;
	}
	for (int i = 1; i < nspecs; i++)
	{
		SpineFieldSpec *spec = &specs[specs[i].by_key];
		SpineFieldSpec *before = &specs[specs[i - 1].by_key];

		if (strcmp(spec->json_key, before->json_key) == 0)
		{
			spec->same_key = before->same_key;
			before->same_key = specs[i].by_key;
		}
	}
}

/* A spec of the key, or -1.  Keys mostly come in the order of the specs. */
static inline int
find_spec(const SpineFieldSpec *specs, int nspecs, int guess, const Key *key)
{
	int			low = 0;
	int			high = nspecs;

	if (guess < nspecs && !key->has_escapes && key->len == specs[guess].key_len &&
		memcmp(key->text, specs[guess].json_key, key->len) == 0)
		return guess;
	while (low < high)
	{
		int			middle = (low + high) / 2;
		int			spec = specs[middle].by_key;
		int			order = compare_key(key, &specs[spec]);

		if (order == 0)
			return spec;
		if (order < 0)
			high = middle;
		else
			low = middle + 1;
	}
	return -1;
}

/* What `field` and the bytes of its value are for a spec. */
static inline SpineField
field_for(const SpineFieldSpec *spec, SpineField field, const char *value, size_t len)
{
	if (spec->as_json && field.kind != SPINE_FIELD_NULL)
		return (SpineField) {SPINE_FIELD_JSON, (uint32_t) len, value};
	return field;
}

/*
 * Returns what jsonb of the fields takes, about; of a key that comes twice, both count.
 * Where a complaint remains, there are no fields.
 */
static size_t
read_record(Reader *reader, const SpineFieldSpec *specs, int nspecs, SpineField *fields)
{
	size_t		memory = 0;
	int			guess = 0;

	for (int i = 0; i < nspecs; i++)
		fields[i] = (SpineField) {SPINE_FIELD_MISSING, 0, ""};

	if (peek(reader) != '{')
	{
		reader->complaint = reader->at == reader->end ? "nothing but white space" : "not a JSON object";
		return 0;
	}
	reader->at++;
	if (peek(reader) != '}')
	{
		for (;;)
		{
			Key			key;
			SpineField	field;
			const char *value;
			size_t		len;
			int			spec;

			if (!read_key(reader, &key))
				return 0;
			(void) peek(reader);
			value = reader->at;
			reader->memory = 0;
			if (!read_value(reader, &field))
				return 0;
			len = reader->at - value;

			spec = find_spec(specs, nspecs, guess, &key);
			if (spec >= 0)
			{
				int			i = spec;

				do
				{
					fields[i] = field_for(&specs[i], field, value, len);
					if (specs[i].for_jsonb)
						memory += SCALAR_COST + reader->memory + BYTE_COST * len;
					i = specs[i].same_key;
				} while (i != spec);
				guess = spec + 1;
			}

			if (peek(reader) == '}')
				break;
			if (!read_comma(reader, '}'))
				return 0;
		}
	}
	reader->at++;
	(void) peek(reader);
	if (reader->at < reader->end)
		complain(reader, "something after the JSON object");
	return memory;
}

size_t
spine_jsonb_memory(const void *text, size_t len)
{
	Reader		reader = {.start = text, .at = text, .end = (const char *) text + len};
	SpineField	value;

	/* where it is not valid, PostgreSQL gets no further either */
	(void) read_value(&reader, &value);
	return reader.beyond_limit ? SIZE_MAX : SCALAR_COST + reader.memory + BYTE_COST * len;
}

/* Positions in reasons count bytes from 1. */
SpineDecodeOutcome
spine_decode(const void *value, size_t value_len, const SpineFieldSpec *specs, int nspecs,
			 size_t max_memory, SpineField *fields, char *reason, size_t reason_size)
{
	Reader		reader = {.start = value, .at = value};
	size_t		memory;

	reason[0] = '\0';
	if (value == NULL || value_len == 0)
	{
		snprintf(reason, reason_size, value == NULL ? "tombstone" : "empty value");
		return value == NULL ? SPINE_NO_VALUE : SPINE_NOT_JSON;
	}
	if (value_len > MAX_RECORD_LEN)
	{
		snprintf(reason, reason_size, "longer than 1 GB");
		return SPINE_BEYOND_LIMIT;
	}

	reader.end = reader.start + value_len;
	memory = read_record(&reader, specs, nspecs, fields);
	if (reader.complaint)
	{
		if (reader.at == reader.end)
			snprintf(reason, reason_size, "%s", reader.complaint);
		else
			snprintf(reason, reason_size, "%s at byte %zu", reader.complaint,
					 (size_t) (reader.at - reader.start) + 1);
		return reader.beyond_limit ? SPINE_BEYOND_LIMIT : SPINE_NOT_JSON;
	}
	if (memory > max_memory)
	{
		snprintf(reason, reason_size,
				 "jsonb of its values would take about %zu MB of memory to make,"
				 " more than spine.max_record_memory allows", memory >> 20);
		return SPINE_BEYOND_LIMIT;
	}
	return SPINE_DECODED;
}
