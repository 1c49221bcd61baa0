--
-- Looking before leaping: what is on a topic, and what a table for it could be
--

CREATE FUNCTION @extschema@.spine_peek(
	topic text, n integer DEFAULT 10, at text DEFAULT 'latest', server name DEFAULT NULL,
	OUT partition integer, OUT "offset" bigint, OUT "timestamp" timestamptz,
	OUT key jsonb, OUT value jsonb, OUT headers jsonb, OUT error text)
RETURNS SETOF record
AS 'MODULE_PATHNAME', 'spine_peek'
LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION @extschema@.spine_peek(text, integer, text, name) IS
'n records of a topic; at: latest, earliest, a time, an offset, or offsets as {"partition": offset}';
REVOKE ALL ON FUNCTION @extschema@.spine_peek(text, integer, text, name) FROM PUBLIC;

-- What follows only reads through spine_peek, with the rights of its caller.  Arguments have
-- exactly the types of the functions that are meant, so that another role's are not taken.

-- Do all texts have the shape, and are they values of the type?  The shape comes first,
-- because the types take more than what anybody would call a date.
CREATE FUNCTION @extschema@.spine_all_are(texts text[], shape text, of_type regtype)
RETURNS boolean
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
SET timezone = 'UTC'
AS $$
BEGIN
	IF EXISTS (SELECT FROM unnest(texts) t WHERE t !~ shape) THEN
		RETURN false;
	END IF;
	EXECUTE format('SELECT count(t::%s) FROM unnest($1) t', of_type) USING texts;
	RETURN true;
EXCEPTION
	WHEN data_exception THEN
		RETURN false;
END
$$;
COMMENT ON FUNCTION @extschema@.spine_all_are(text[], text, regtype) IS 'part of spine_infer';

-- The narrowest type that takes all of these values, none of which is null.
CREATE FUNCTION @extschema@.spine_infer_type(samples jsonb[], OUT type text, OUT note text)
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	kinds	text[] := ARRAY(SELECT DISTINCT jsonb_typeof(v) FROM unnest(samples) v ORDER BY 1);
	texts	text[] := ARRAY(SELECT v #>> '{}' FROM unnest(samples) v);
	day		text := '\d{4}-\d{2}-\d{2}';
	clock	text := '[T ]\d{2}:\d{2}(:\d{2}(\.\d+)?)?';
	zone	text := '(Z|[+-]\d{2}(:?\d{2})?)';
BEGIN
	IF kinds = '{}' THEN
		type := 'jsonb';
		note := 'only null was seen';
	ELSIF kinds && '{array,object}' THEN
		type := 'jsonb';
		note := CASE WHEN cardinality(kinds) > 1 THEN array_to_string(kinds, ' or ') END;
	ELSIF cardinality(kinds) > 1 THEN
		type := 'text';
		note := array_to_string(kinds, ' or ');
	ELSIF kinds = '{boolean}' THEN
		type := 'boolean';
	ELSIF kinds = '{number}' THEN
		type := CASE WHEN @extschema@.spine_all_are(texts, '^-?\d+$'::text, 'bigint'::regtype) THEN 'bigint' ELSE 'numeric' END;
		SELECT format('perhaps %s since 1970: then make it timestamptz, with {"path": ..., "as": "%s"} below', r.unit, r.reading)
		INTO note
		FROM (VALUES (1e9, 'seconds', 'epoch_s'), (1e12, 'milliseconds', 'epoch_ms'), (1e15, 'microseconds', 'epoch_us')) r (low, unit, reading)
		WHERE NOT EXISTS (SELECT FROM unnest(texts) t WHERE t::numeric NOT BETWEEN r.low AND 4 * r.low);
	ELSIF @extschema@.spine_all_are(texts, '^[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}$'::text, 'uuid'::regtype) THEN
		type := 'uuid';
	ELSIF @extschema@.spine_all_are(texts, ('^' || day || '$')::text, 'date'::regtype) THEN
		type := 'date';
	ELSIF @extschema@.spine_all_are(texts, ('^' || day || '(' || clock || zone || '?)?$')::text, 'timestamptz'::regtype) THEN
		type := 'timestamptz';
		note := CASE WHEN EXISTS (SELECT FROM unnest(texts) t WHERE t !~ (clock || zone || '$'))
					 THEN 'read as UTC where there is no zone' END;
	ELSE
		type := 'text';
		note := CASE WHEN @extschema@.spine_all_are(texts, '^-?\d+(\.\d+)?$'::text, 'numeric'::regtype)
					 THEN 'numbers in quotes: numeric would take them' END;
	END IF;
END
$$;
COMMENT ON FUNCTION @extschema@.spine_infer_type(jsonb[]) IS 'part of spine_infer';

-- The fields of objects: their members, and instead of a small object that always has the
-- same members, the members of that one.  of_key: whether the field always is the record's
-- key ('whole'), or a member of a key whose members are all in the record ('member').
CREATE FUNCTION @extschema@.spine_infer_fields(keys jsonb[], objects jsonb[])
RETURNS TABLE (path text[], type text, seen bigint, nulls bigint, distinct_values bigint,
			   of_key text, examples text[], note text)
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
	WITH sample AS (
		SELECT CASE WHEN jsonb_typeof(s.key) <> 'object' OR s.object @> s.key THEN s.key END AS key, s.object
		FROM unnest(keys, objects) s (key, object)
	), member AS (
		SELECT s.key, m.key AS name, m.value, jsonb_typeof(m.value) AS kind
		FROM sample s, jsonb_each(s.object) m
	), inner_member AS (
		SELECT m.key, m.name AS outer_name, i.key AS name, i.value
		FROM member m, jsonb_each(CASE m.kind WHEN 'object' THEN m.value ELSE '{}' END) i
	), taken_apart AS (
		SELECT i.outer_name AS name
		FROM inner_member i
		GROUP BY 1
		HAVING count(DISTINCT i.name) <= 8
			AND bool_and(jsonb_typeof(i.value) NOT IN ('object', 'array'))
			AND count(*) = count(DISTINCT i.name) * (SELECT count(*) FROM member m WHERE m.name = i.outer_name AND m.kind = 'object')
			AND NOT EXISTS (SELECT FROM member m WHERE m.name = i.outer_name AND m.kind NOT IN ('object', 'null'))
	), field AS (
		SELECT ARRAY[m.name] AS path, m.value,
			   CASE jsonb_typeof(m.key) WHEN 'object' THEN m.key -> m.name ELSE m.key END AS key
		FROM member m
		WHERE m.name NOT IN (SELECT t.name FROM taken_apart t)
		UNION ALL
		SELECT ARRAY[i.outer_name, i.name], i.value,
			   CASE jsonb_typeof(i.key) WHEN 'object' THEN NULL ELSE i.key END
		FROM inner_member i
		WHERE i.outer_name IN (SELECT t.name FROM taken_apart t)
	), summary AS (
		SELECT f.path, count(*) AS seen, count(*) FILTER (WHERE f.value = 'null') AS nulls,
			   count(*) FILTER (WHERE f.key <> 'null' AND f.key #>> '{}' = f.value #>> '{}') = cardinality(objects) AS is_key,
			   coalesce(array_agg(DISTINCT f.value) FILTER (WHERE f.value <> 'null'), '{}') AS found
		FROM field f
		GROUP BY 1
	)
	SELECT s.path, t.type, s.seen, s.nulls, cardinality(s.found),
		   CASE WHEN s.is_key THEN CASE jsonb_typeof(keys[1]) WHEN 'object' THEN 'member' ELSE 'whole' END END,
		   ARRAY(SELECT left(v #>> '{}', 100) FROM unnest(s.found[:3]) v), t.note
	FROM summary s, @extschema@.spine_infer_type(s.found) t
$$;
COMMENT ON FUNCTION @extschema@.spine_infer_fields(jsonb[], jsonb[]) IS 'part of spine_infer';

-- A name for a column that is not taken yet, neither by the server nor by the mapping "*".
CREATE FUNCTION @extschema@.spine_infer_name(wanted text, taken name[])
RETURNS name
LANGUAGE plpgsql IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	suffix	text := '';
	n		integer := 1;
BEGIN
	wanted := coalesce(nullif(regexp_replace(wanted, '[[:cntrl:]]+', '_', 'g'), ''), 'column');
	LOOP
		WHILE octet_length(wanted || suffix) > 63 LOOP
			wanted := left(wanted, -1);
		END LOOP;
		IF (wanted || suffix)::name <> ALL (taken || '{tableoid,cmax,xmax,cmin,xmin,ctid,*}'::name[]) THEN
			RETURN wanted || suffix;
		END IF;
		n := n + 1;
		suffix := '_' || n;
	END LOOP;
END
$$;
COMMENT ON FUNCTION @extschema@.spine_infer_name(text, name[]) IS 'part of spine_infer';

CREATE FUNCTION @extschema@.spine_infer_columns(topic text, n integer DEFAULT 1000, server name DEFAULT NULL)
RETURNS TABLE (column_name name, type text, path text, records bigint, seen bigint, nulls bigint,
			   distinct_values bigint, of_key text, examples text[], note text)
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	sample	record;
	field	record;
	taken	name[] := '{}';
	keyed	boolean := false;	-- a field repeats the record's key
BEGIN
	SELECT count(*) AS n,
		   array_agg(p.key) FILTER (WHERE jsonb_typeof(p.value) = 'object') AS keys,
		   array_agg(p.value) FILTER (WHERE jsonb_typeof(p.value) = 'object') AS objects,
		   min(p.error) FILTER (WHERE p.value IS NULL OR jsonb_typeof(p.value) <> 'object') AS error
	INTO sample
	FROM @extschema@.spine_peek(topic, n, 'latest'::text, server) p;
	IF sample.n = 0 THEN
		RAISE EXCEPTION 'topic "%" has no records', topic
			USING ERRCODE = 'no_data_found';
	ELSIF sample.objects IS NULL THEN
		RAISE EXCEPTION 'none of % records of topic "%" is a JSON object', sample.n, topic
			USING ERRCODE = 'data_exception', DETAIL = coalesce(sample.error, ''),
				  HINT = format('See SELECT * FROM spine_peek(%L).', topic);
	ELSIF cardinality(sample.objects) < sample.n THEN
		RAISE NOTICE '% of % records of topic "%" are no JSON objects', sample.n - cardinality(sample.objects), sample.n, topic
			USING DETAIL = coalesce(sample.error, '');
	END IF;

	records := cardinality(sample.objects);
	FOR field IN
		SELECT *
		FROM @extschema@.spine_infer_fields(sample.keys, sample.objects) f
		ORDER BY f.of_key IS NULL, f.path
	LOOP
		column_name := @extschema@.spine_infer_name(array_to_string(field.path, '_'), taken);
		taken := taken || column_name;
		keyed := keyed OR field.of_key IS NOT NULL;
		type := field.type;
		path := CASE WHEN cardinality(field.path) = 1 AND field.path[1] ~ '^[^$*]' THEN field.path[1]
					 ELSE (SELECT '$' || string_agg('.' || CASE WHEN step ~ '^[A-Za-z_][A-Za-z0-9_]*$' THEN step
																ELSE to_jsonb(step)::text END, '' ORDER BY i)
						   FROM unnest(field.path) WITH ORDINALITY s (step, i)) END;
		seen := field.seen;
		nulls := field.nulls;
		distinct_values := field.distinct_values;
		of_key := field.of_key;
		examples := field.examples;
		note := field.note;
		RETURN NEXT;
	END LOOP;

	IF NOT keyed AND (SELECT bool_and(coalesce(jsonb_typeof(k) IN ('string', 'number'), false)) FROM unnest(sample.keys) k) THEN
		column_name := @extschema@.spine_infer_name('record_key', taken);
		path := '$key';
		SELECT t.type, count(DISTINCT k), (array_agg(DISTINCT left(k #>> '{}', 100)))[:3]
		INTO type, distinct_values, examples
		FROM @extschema@.spine_infer_type(sample.keys) t, unnest(sample.keys) k
		GROUP BY 1;
		seen := records;
		nulls := 0;
		of_key := CASE WHEN distinct_values = records THEN 'whole' END;
		note := 'the record''s key, which is in no field';
		RETURN NEXT;
	END IF;
END
$$;
COMMENT ON FUNCTION @extschema@.spine_infer_columns(text, integer, name) IS
'what the last n records of a topic, which are JSON objects, consist of: the columns of a table for them';
REVOKE ALL ON FUNCTION @extschema@.spine_infer_columns(text, integer, name) FROM PUBLIC;

-- The columns that tell records apart, and how that is known.
CREATE FUNCTION @extschema@.spine_infer_key(columns jsonb, OUT key name[], OUT reason text)
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	of_record	record;		-- the record's key
	id			name;		-- a field that differs in all records, and is called so
BEGIN
	SELECT array_agg(c.column_name ORDER BY c.column_name) FILTER (WHERE c.of_key = 'member') AS members,
		   (array_agg(c.column_name ORDER BY c.column_name !~* 'id$', length(c.column_name), c.column_name)
			FILTER (WHERE c.of_key = 'whole'))[1] AS whole,
		   coalesce(max(c.distinct_values) FILTER (WHERE c.of_key = 'whole') = max(c.records), true) AS differs
	INTO of_record
	FROM jsonb_to_recordset(columns) c (column_name name, records bigint, distinct_values bigint, of_key text);
	SELECT c.column_name
	INTO id
	FROM jsonb_to_recordset(columns) c (column_name name, type text, records bigint, distinct_values bigint)
	WHERE c.type IN ('bigint', 'uuid', 'text') AND c.records > 1 AND c.distinct_values = c.records
		AND (c.column_name ~* '(^|_)(id|uuid|guid)$' OR c.column_name ~ '[a-z]I[dD]$')
	ORDER BY length(c.column_name), c.column_name
	LIMIT 1;

	IF of_record.members IS NOT NULL THEN
		key := of_record.members;
		reason := 'These columns are the record''s key: ' || array_to_string(key, ', ');
	ELSIF of_record.whole IS NOT NULL AND (of_record.differs OR id IS NULL) THEN
		key := ARRAY[of_record.whole];
		reason := format('The record''s key is %I in every record that was read. A later record replaces the row.', of_record.whole);
	ELSIF id IS NOT NULL THEN
		key := ARRAY[id];
		reason := format('%I differs in all records that were read. If it comes again, the later record replaces the row.', id)
			|| coalesce(format(' %s, the record''s key, is the same in many records.', quote_ident(of_record.whole)), '');
	ELSE
		reason := 'No column tells records apart: each record becomes a row. Its place in the log is the key, so that a record that is read again is not doubled.';
	END IF;
END
$$;
COMMENT ON FUNCTION @extschema@.spine_infer_key(jsonb) IS 'part of spine_infer';

-- What comes from a topic, made fit for a comment that ends with its line.
CREATE FUNCTION @extschema@.spine_infer_comment(remark text)
RETURNS text
LANGUAGE sql IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$
	SELECT '-- ' || regexp_replace(remark, '[[:cntrl:]]+', ' ', 'g')
$$;
COMMENT ON FUNCTION @extschema@.spine_infer_comment(text) IS 'part of spine_infer';

-- Everything that comes from the topic is quoted, or in a comment.
CREATE FUNCTION @extschema@.spine_infer(
	topic text, n integer DEFAULT 1000, server name DEFAULT NULL, table_name text DEFAULT NULL)
RETURNS text
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	columns		jsonb;
	names		name[];			-- of the table
	log_place	name[] := '{}';	-- columns for the place in the log
	key			record;
	lines		text;
	sources		text;
	target		text;
BEGIN
	SELECT jsonb_agg(c)
	INTO columns
	FROM (SELECT * FROM @extschema@.spine_infer_columns(topic, n, server) LIMIT 500) c;
	names := CASE WHEN table_name IS NULL THEN ARRAY[lower(regexp_replace(topic, '[^A-Za-z0-9_]+', '_', 'g'))]
				  ELSE parse_ident(table_name) END;
	target := (SELECT string_agg(quote_ident(part), '.') FROM unnest(names) part);
	key := @extschema@.spine_infer_key(columns);
	IF key.key IS NULL THEN
		log_place := ARRAY(SELECT @extschema@.spine_infer_name(wanted, ARRAY(SELECT c ->> 'column_name' FROM jsonb_array_elements(columns) c)::name[])
						   FROM unnest('{kafka_partition,kafka_offset}'::text[]) wanted);
	END IF;

	SELECT string_agg(concat(E'\t', quote_ident(c.column_name), ' ', c.type,
							 CASE WHEN c.column_name = ANY (key.key) THEN ' NOT NULL' END, ',',
							 E'\t' || @extschema@.spine_infer_comment(nullif(concat_ws('; ', c.note,
								CASE WHEN c.seen < c.records THEN format('absent in %s of %s', c.records - c.seen, c.records) END), '')),
							 E'\n'), '' ORDER BY c.i),
		   string_agg(concat(to_jsonb(c.column_name), ': ', to_jsonb(c.path)), E',\n\t\t' ORDER BY c.i)
	INTO lines, sources
	FROM ROWS FROM (jsonb_to_recordset(columns) AS (column_name text, type text, path text, records bigint, seen bigint, note text))
		WITH ORDINALITY c (column_name, type, path, records, seen, note, i);
	IF key.key IS NULL THEN
		lines := concat(lines, format(E'\t%I integer NOT NULL,\n\t%I bigint NOT NULL,\n', log_place[1], log_place[2]));
		sources := concat_ws(E',\n\t\t', sources, concat(to_jsonb(log_place[1]), ': "$partition"'),
							 concat(to_jsonb(log_place[2]), ': "$offset"'));
	END IF;

	RETURN concat(
		@extschema@.spine_infer_comment(format('What %s records of topic "%s" suggest.  Read this before you run it.',
											   columns -> 0 -> 'records', topic)), E'\n',
		@extschema@.spine_infer_comment(key.reason), E'\n',
		'CREATE TABLE ', target, E' (\n', lines,
		E'\tPRIMARY KEY (', (SELECT string_agg(quote_ident(k), ', ') FROM unnest(coalesce(key.key, log_place)) k), E')\n);\n',
		E'SELECT @extschema@.spine_create_pipeline(\n\tname => ', quote_literal(names[cardinality(names)]),
		E',\n\ttopic => ', quote_literal(topic),
		E',\n\ttarget => ', quote_literal(target),
		E',\n\tmode => ', CASE WHEN key.key IS NULL THEN quote_literal('append') ELSE quote_literal('upsert') END,
		E',\n\tkey => ', quote_literal(coalesce(key.key, log_place)::text),
		E',\n\tserver => ' || quote_literal(server),
		E',\n\tcolumns => ', quote_literal(concat(E'{\n\t\t', sources, E'\n\t}')),
		E');\n');
END
$$;
COMMENT ON FUNCTION @extschema@.spine_infer(text, integer, name, text) IS
'SQL to read and run: a table for what the last n records of a topic consist of, and a pipeline into it';
REVOKE ALL ON FUNCTION @extschema@.spine_infer(text, integer, name, text) FROM PUBLIC;

CREATE FUNCTION @extschema@.spine_preview(
	pipeline name, n integer DEFAULT 100, at text DEFAULT 'current',
	OUT topic text, OUT partition integer, OUT "offset" bigint, OUT sink regclass, OUT action text,
	OUT new_row jsonb, OUT old_row jsonb, OUT sqlstate text, OUT reason text)
RETURNS SETOF record
AS 'MODULE_PATHNAME', 'spine_preview'
LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE;
COMMENT ON FUNCTION @extschema@.spine_preview(name, integer, text) IS
'what a pipeline would do to the n records that it reads next (at: current), or to others: applied, and rolled back';
GRANT EXECUTE ON FUNCTION @extschema@.spine_preview(name, integer, text) TO PUBLIC;
